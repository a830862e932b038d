//go:build !linux

package main

import "context"

// commands are what runs where there is nothing to measure.
var commands = map[string]func(context.Context, []string){"report": report}
