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

	"github.com/portsplice/portsplice/bench/internal/failure"
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
	if err := failure.Caught(func() { commands[args[0]](ctx, args[1:]) }); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}
