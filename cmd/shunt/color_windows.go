package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// showsEscapes asks the console to heed escape sequences, which older ones do
// only when they are told to.
func showsEscapes(file *os.File) bool {
	console := windows.Handle(file.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
