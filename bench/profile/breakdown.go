package main

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/pprof/profile"
)

// breakdown is where the CPU time of a proxy went.
type breakdown struct {
	proxy string
	parts map[string]float64 // of the whole, by category
	cost  float64            // of one operation, or of a GB
	unit  string
}

// newBreakdown sorts the samples of a profile by category, and puts a price to them by what was measured meanwhile.
func newBreakdown(proxy string, p *profile.Profile, measured map[string]float64) breakdown {
	b := breakdown{proxy: proxy, parts: map[string]float64{}}
	var whole float64
	for _, s := range p.Sample {
		v := float64(s.Value[len(s.Value)-1]) // nanoseconds; before it are counts
		b.parts[category(stack(s))] += v
		whole += v
	}
	for c := range b.parts {
		b.parts[c] /= whole
	}
	for unit, v := range measured {
		if strings.HasPrefix(unit, "proxy-") {
			b.cost, b.unit = v, strings.TrimPrefix(unit, "proxy-")
		}
	}
	return b
}

// stack lists the functions of a sample, the innermost first.
func stack(s *profile.Sample) []string {
	var names []string
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil {
				names = append(names, line.Function.Name)
			}
		}
	}
	return names
}

// category of a stack: which system call, or what of whom runs outside of the kernel. The profiler sees a system call as
// time in the instruction that makes it, so its name is that of the function that asked for it.
func category(stack []string) string {
	if len(stack) == 0 {
		return "unknown"
	}
	for i, function := range stack {
		if !makesCalls(function) {
			if i > 0 {
				return "system call: " + kind(function)
			}
			return owner(function)
		}
	}
	return "system call: unknown"
}

// makesCalls tells whether a function only passes a system call on, whichever it is.
func makesCalls(function string) bool {
	name := strings.TrimSuffix(path.Base(function), ".abi0")
	_, name, _ = strings.Cut(name, ".")
	return slices.Contains([]string{"Syscall6", "RawSyscall6", "RawSyscall", "Syscall", "rawSyscallNoError",
		"RawSyscallNoError", "rawVforkSyscall", "runtime_entersyscall", "runtime_exitsyscall"}, name)
}

// kind names the call by the function that makes it: splice.linux.recv is recv, syscall.write is write.
func kind(function string) string {
	return strings.ToLower(function[strings.LastIndexByte(function, '.')+1:])
}

// owner is whose code a function is. Some of the runtime's functions are system calls themselves.
func owner(function string) string {
	const module = "github.com/portsplice/portsplice/"
	if rest, ours := strings.CutPrefix(function, module); ours {
		name, _, _ := strings.Cut(rest, ".")
		return "ours: " + name
	}
	slash := strings.LastIndexByte(function, '/')
	name, rest, _ := strings.Cut(function[slash+1:], ".")
	name = function[:slash+1] + name
	switch {
	case name == "runtime" && slices.Contains([]string{"futex", "usleep", "epollwait", "tgkill", "write1", "read"}, rest):
		return "system call: " + rest
	case name == "runtime" || strings.HasPrefix(name, "runtime/") || strings.HasPrefix(name, "internal/runtime/"):
		return "Go runtime"
	case name == "main":
		return "package main"
	}
	return "library: " + name
}

// table has a row for each category and a column for each proxy.
func table(work string, columns []breakdown) string {
	all := map[string]float64{}
	for _, c := range columns {
		for name, part := range c.parts {
			all[name] = max(all[name], part*c.cost)
		}
	}
	rows := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "%s\t", work) // a strings.Builder takes everything
	for _, c := range columns {
		_, _ = fmt.Fprintf(w, "%s, %s\t\t", c.proxy, c.unit)
	}
	_, _ = fmt.Fprint(w, "\nall\t")
	for _, c := range columns {
		_, _ = fmt.Fprintf(w, "%.3g\t100%%\t", c.cost)
	}
	for _, name := range rows {
		_, _ = fmt.Fprintf(w, "\n%s\t", name)
		for _, c := range columns {
			_, _ = fmt.Fprintf(w, "%.3f\t%.1f%%\t", c.parts[name]*c.cost, 100*c.parts[name])
		}
	}
	_, _ = fmt.Fprintln(w)
	_ = w.Flush()
	return b.String()
}
