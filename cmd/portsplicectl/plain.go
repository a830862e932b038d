package main

import (
	"os"
	"strings"
	"unicode"
)

// plain is a file for text that others have told: whoever likes may listen at a worker's name, and would have root's terminal
// obey what it shows.
type plain struct{ *os.File }

func (p plain) Write(b []byte) (int, error) {
	if _, err := p.File.WriteString(printable(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteString hides that of the file.
func (p plain) WriteString(s string) (int, error) { return p.Write([]byte(s)) }

// printable is a text without what a terminal takes for commands.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
