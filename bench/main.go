package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench", err)
		os.Exit(1)
	}
}

// run runs a subcommand until its end, or until a signal to end, which ends the context.
func run(args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("%s: what to do, and its flags, are wanted", strings.Join(slices.Sorted(maps.Keys(commands)), "|"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := caught(func() { check(commands[args[0]](ctx, args[1:])) }); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

// failure is an error on its way out: what finds one panics, since a command or a measurement ends with it, and caught
// makes an error of that again. What runs in a namespace has a goroutine of its own, and returns its errors.
type failure struct{ error }

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// must gives what came without an error.
func must[T any](v T, err error) T {
	check(err)
	return v
}

// caught is how f failed.
func caught(f func()) (err error) {
	defer func() {
		p := recover()
		if f, failed := p.(failure); failed {
			err = f.error
		} else if p != nil {
			panic(p)
		}
	}()
	f()
	return nil
}
