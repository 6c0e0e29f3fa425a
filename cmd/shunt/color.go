package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/term"
)

// Values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// Escape sequences of the colours that git gives a diff.
const (
	escBold  = "\x1b[1m"
	escRed   = "\x1b[31m"
	escGreen = "\x1b[32m"
	escCyan  = "\x1b[36m"
	escReset = "\x1b[m"
)

// colors are those of the lines of a diff below its header, by how they begin.
var colors = map[byte]string{'@': escCyan, '-': escRed, '+': escGreen}

func checkColor(when string) error {
	if slices.Contains([]string{colorAuto, colorAlways, colorNever}, when) {
		return nil
	}
	return fmt.Errorf("--color: invalid value %q; accepted: auto, always, never", when)
}

// colored says whether what is written to w is to be in colours: with auto,
// where w is a terminal that shows them and NO_COLOR is not set.
func colored(when string, w io.Writer) bool {
	if when != colorAuto {
		return when == colorAlways
	}
	file, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" &&
		term.IsTerminal(int(file.Fd())) && showsEscapes(file)
}

// paint colours the unified diff of one file, line by line.
func paint(diff []byte) []byte {
	var out bytes.Buffer
	header := true // a removed line that begins with -- looks like one
	for line := range bytes.Lines(diff) {
		header = header && line[0] != '@'
		color := colors[line[0]]
		if header {
			color = escBold
		}
		text, end := bytes.CutSuffix(line, []byte("\n"))
		if color != "" {
			text = slices.Concat([]byte(color), text, []byte(escReset))
		}
		out.Write(text)
		if end {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}
