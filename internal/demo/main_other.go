//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "demo: descriptors are handed to the proxy as dockerd does it, which is on Linux only")
	os.Exit(1)
}
