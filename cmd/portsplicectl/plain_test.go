package main

import (
	"io"
	"os"
	"testing"
)

// TestPlain: what others tell comes to a terminal as text, however it is written.
func TestPlain(t *testing.T) {
	const told = "0.0.0.0:80 → \x1b[2J\u009b31mred\x07\r\x7f\t10\n"
	const want = "0.0.0.0:80 → \ufffd[2J\ufffd31mred\ufffd\ufffd\ufffd\t10\n"
	for name, write := range map[string]func(plain) (int, error){
		"Write":       func(p plain) (int, error) { return p.Write([]byte(told)) },
		"WriteString": func(p plain) (int, error) { return io.WriteString(p, told) },
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			n, err := write(plain{w})
			if n != len(told) || err != nil {
				t.Errorf("it wrote %d, %v; want %d", n, err, len(told))
			}
			_ = w.Close()
			if got, err := io.ReadAll(r); string(got) != want || err != nil {
				t.Errorf("it shows %q, %v; want %q", got, err, want)
			}
			_ = r.Close()
		})
	}
}
