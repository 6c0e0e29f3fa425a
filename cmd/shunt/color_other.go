//go:build !windows

package main

import "os"

// showsEscapes is true of any terminal that is not a Windows console.
func showsEscapes(*os.File) bool { return true }
