package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestCategory(t *testing.T) {
	const ours = "github.com/portsplice/portsplice/"
	for _, test := range []struct {
		name  string
		stack []string
		want  string
	}{
		{"our system call", []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6",
			"golang.org/x/sys/unix.RawSyscall6", ours + "splice.linux.recv", "main.main"}, "system call: recv"},
		{"one of the library's", []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "syscall.Syscall",
			"syscall.write", "internal/poll.(*FD).Write"}, "system call: write"},
		{"one of the runtime's", []string{"runtime.futex", "runtime.futexsleep"}, "system call: futex"},
		{"the runtime", []string{"runtime.findRunnable", "runtime.schedule"}, "Go runtime"},
		{"our code", []string{ours + "splice.(*loop).run", "main.main"}, "ours: splice"},
		{"the program", []string{"main.pump"}, "package main"},
		{"a library", []string{"internal/poll.(*FD).Read", "net.(*conn).Read"}, "library: internal/poll"},
		{"nothing else", []string{"syscall.Syscall6"}, "system call: unknown"},
		{"nothing", nil, "unknown"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := category(test.stack); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// sampled is a profile with a function per sample.
func sampled(values map[string]int64) *profile.Profile {
	var p profile.Profile
	for name, v := range values {
		p.Sample = append(p.Sample, &profile.Sample{Value: []int64{1, v}, Location: []*profile.Location{
			{Line: []profile.Line{{Function: &profile.Function{Name: name}}}},
			{Line: []profile.Line{{Function: &profile.Function{Name: "main.<main>"}}}},
		}})
	}
	return &p
}

func TestTableHasThePriceOfEveryPart(t *testing.T) {
	b := newBreakdown("splice", sampled(map[string]int64{"runtime.schedule": 3e6, "runtime.futex": 1e6}),
		map[string]float64{"proxy-us/exchange": 20, "exchange/s": 1})
	want := `
   pingpong  splice, us/exchange
        all                   20   100%
 Go runtime               15.000  75.0%
system call: futex        5.000  25.0%
`
	fields := func(text string) [][]string {
		var lines [][]string
		for line := range strings.Lines(strings.TrimSpace(text)) {
			lines = append(lines, strings.Fields(line))
		}
		return lines
	}
	if diff := cmp.Diff(fields(want), fields(table("pingpong", []breakdown{b}))); diff != "" {
		t.Error(diff)
	}
}

func TestFlameGraph(t *testing.T) {
	svg := flameGraph("a & b", sampled(map[string]int64{"runtime.schedule": 3e6, "runtime.futex": 1e6}))
	for _, want := range []string{"a &amp; b", "main.&lt;main&gt; 100.0%", "runtime.schedule 75.0%", "runtime.futex 25.0%"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in\n%s", want, svg)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
}
