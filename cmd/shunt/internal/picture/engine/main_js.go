// The engine of a page of `shunt trace -o html`: the walker, compiled for a browser.
package main

import (
	"encoding/json"
	"syscall/js"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/picture/exchange"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// main gives the page one function: open, which reads the document and returns the
// functions that answer questions about it. All of them return JSON: the answer, or
// an object with an error.
func main() {
	js.Global().Set("shuntOpen", js.FuncOf(func(_ js.Value, args []js.Value) any {
		desk, err := exchange.Open([]byte(args[0].String()))
		if err != nil {
			return result(nil, err)
		}
		js.Global().Set("shuntView", js.FuncOf(func(_ js.Value, args []js.Value) any {
			return result(desk.View(args[0].Int(), args[1].Int()))
		}))
		js.Global().Set("shuntAsk", js.FuncOf(func(_ js.Value, args []js.Value) any {
			var question trace.Question
			if err := json.Unmarshal([]byte(args[2].String()), &question); err != nil {
				return result(nil, err)
			}
			return result(desk.Ask(args[0].Int(), args[1].Int(), question))
		}))
		return result(struct{}{}, nil)
	}))
	select {} // the page calls the functions
}

func result(value any, err error) string {
	if err != nil {
		value = map[string]string{"error": err.Error()}
	}
	text, err := json.Marshal(value)
	if err != nil {
		return `{"error": "the answer is no JSON"}`
	}
	return string(text)
}
