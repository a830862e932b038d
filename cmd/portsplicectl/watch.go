package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// screen is a terminal on which the same text is shown again and again.
type screen struct {
	w    io.Writer
	size func() (width, height int, err error)
}

// onTerminal gives the screen that w is, if it is one that can go to its upper left corner.
func onTerminal(w io.Writer) (*screen, bool) {
	f, is := w.(plain)
	if !is || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil, false
	}
	return &screen{f.File, func() (int, int, error) { return term.GetSize(int(f.Fd())) }}, true
}

// ANSI's control sequences (ECMA-48), and the two of all terminals by which the cursor is hidden.
const (
	home       = "\x1b[H"
	clearAll   = "\x1b[2J"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
)

// show replaces what is shown. What does not fit is cut off.
func (s *screen) show(text string) error {
	width, height, err := s.size()
	if err != nil {
		width, height = 80, 24
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > height-1 && height > 2 {
		left := len(lines) - (height - 2)
		lines = append(lines[:height-2:height-2], fmt.Sprintf("and %d lines more", left))
	}
	var b strings.Builder
	b.WriteString(home)
	for _, line := range lines {
		if r := []rune(line); len(r) > width {
			line = string(r[:width])
		}
		b.WriteString(printable(line) + clearLine + "\r\n")
	}
	b.WriteString(clearBelow)
	_, err = io.WriteString(s.w, b.String())
	return err
}

// watchOn looks again and again, until the context ends. On a terminal one table takes the place of the other, elsewhere
// they follow one another.
func (o *psOptions) watchOn(ctx context.Context, out, diagnosis io.Writer) (err error) {
	screen, live := onTerminal(out)
	if live {
		if _, err := io.WriteString(screen.w, hideCursor+clearAll); err != nil {
			return err
		}
		defer func() { _, _ = io.WriteString(screen.w, showCursor) }() // or nobody looks any more
	}
	ticker := time.NewTicker(o.interval)
	defer ticker.Stop()
	var l look
	for first := true; ; first = false {
		var failed error
		l, failed = o.look(l)
		var text bytes.Buffer
		if live {
			_, _ = fmt.Fprintf(&text, "%s, every %v; Ctrl-C ends it\n\n", l.at.Format(time.TimeOnly), o.interval)
		} else if !first && o.gaps() {
			text.WriteByte('\n')
		}
		told := &text
		if !live {
			told = new(bytes.Buffer)
		}
		if l.none && failed == nil {
			_, _ = fmt.Fprintln(told, nobody())
		}
		if l.rows != nil && (!l.none || !live) {
			if err := o.print(&text, l.rows); err != nil {
				return err
			}
		}
		if failed != nil {
			_, _ = fmt.Fprintln(told, "Error:", failed)
		}
		if live {
			err = screen.show(text.String())
		} else {
			_, _ = told.WriteTo(diagnosis) // what the table lacks; it is an extra
			_, err = text.WriteTo(out)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// gaps says whether one output needs an empty line after it: a table does.
func (o *psOptions) gaps() bool {
	return !o.json && (o.format == "" || strings.HasPrefix(o.format, "table"))
}
