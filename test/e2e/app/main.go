// The program app runs in the pods of the tests on a real cluster. As a server it
// answers with the address that it was called from; as a client it calls the
// server. It is one static program, because its image has no shell.
//
//	app tell ADDRESS...        connects to each address, and says from which address and port it does
//	app serve [ADDRESS...]     tells each address first; answers HTTP on 8080, HTTPS on 8443, gRPC health on 9090, and every TCP
//	                           connection on 9000; keeps those on 9001 open, and sends each its last words when it is told to end
//	app hold ADDRESS           opens idle connections, and reports what each received until its end
//	app get URL                prints the answer of a URL; tries for 20 s
//	app resolve ADDRESS        answers DNS queries on 53: every name has this IPv4 address
//	app touch FILE             makes a file: what a lifecycle hook leaves behind
//	app stat FILE              succeeds if it exists: a probe by command
//	app exit CODE              exits with a code
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) > 0 && (args[0] == "tell" || args[0] == "serve") {
		if err := tell(args[1:]); err != nil || args[0] == "tell" {
			return 0, err
		}
		return 0, serve()
	}
	if len(args) != 2 {
		return 0, fmt.Errorf("no such command: %q", args)
	}
	switch argument := args[1]; args[0] {
	case "get":
		return 0, get(argument)
	case "hold":
		return 0, hold(argument)
	case "resolve":
		return 0, resolve(argument)
	case "touch":
		file, err := os.Create(argument)
		if err != nil {
			return 0, err
		}
		return 0, file.Close()
	case "stat":
		_, err := os.Stat(argument)
		return 0, err
	case "exit":
		return strconv.Atoi(argument)
	default:
		return 0, fmt.Errorf("no such command: %q", args)
	}
}
