package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// Environment is where and with what something was measured.
type Environment struct {
	Date       time.Time `json:"date"`
	Kernel     string    `json:"kernel"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Go         string    `json:"go"`
	TCP        string    `json:"tcp"`         // its congestion control
	Groups     bool      `json:"groups"`      // client, proxy and server have scheduling groups of their own
	LoadBefore string    `json:"load_before"` // averages of 1, 5 and 15 minutes
	LoadAfter  string    `json:"load_after"`
	Noise      float64   `json:"noise"` // the most that direct moved in any work
}

// ReadEnvironment reads all that is known before the measurements, but for the congestion control.
func ReadEnvironment() Environment {
	kernel := failure.Must(os.ReadFile("/proc/sys/kernel/osrelease"))
	grouped, _ := os.ReadFile("/proc/sys/kernel/sched_autogroup_enabled") // not there without
	return Environment{
		Date: time.Now().Round(time.Second), Kernel: "Linux " + strings.TrimSpace(string(kernel)), CPU: cpuModel(),
		Cores: runtime.NumCPU(), Go: runtime.Version(), LoadBefore: loadAverage(), Groups: string(grouped) == "1\n",
	}
}

// loadAverage gives the averages of 1, 5 and 15 minutes.
func loadAverage() string {
	return strings.Join(strings.Fields(string(failure.Must(os.ReadFile("/proc/loadavg"))))[:3], " ")
}

// cpuModel is for people: not every architecture tells.
func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	if found := regexp.MustCompile(`(?m)^model name\s*: *(.*?) *$`).FindSubmatch(b); found != nil {
		return string(found[1])
	}
	return "unknown"
}

// Head is what is known before the measurements.
func (e Environment) Head(proxies []Proxy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d cores, TCP %s, %s, %s\nload average before: %s\n",
		e.Kernel, e.CPU, e.Cores, e.TCP, e.Go, e.Date.Format(time.RFC3339), e.LoadBefore)
	for _, p := range proxies {
		if p.Path != "" {
			command := strings.Join(slices.Concat(p.Environment, []string{filepath.Base(p.Path)}, p.Arguments), " ")
			fmt.Fprintf(&b, "%-21s  %s (%s)\n", p.Name, command, p.Version)
		}
	}
	if !e.Groups {
		b.WriteString("client, proxy and server share one scheduling group: CPUs go to who has most threads\n")
	}
	fmt.Fprintf(&b, "ours may have as many loops as there are cores, %d, and at times one more, but for rows that say otherwise: @1 is one loop\n",
		e.Cores)
	return b.String()
}

// Foot is what is known after them.
func (e Environment) Foot(rounds int) string {
	moved := fmt.Sprintf("direct moved by up to %.0f%% between rounds", 100*e.Noise)
	verdict := "quiet: " + moved
	switch {
	case rounds < 2:
		verdict = "one round does not tell how noisy the machine is"
	case e.Noise > NoiseLimit:
		verdict = "NOISY: " + moved
	}
	return fmt.Sprintf("\nload average after: %s\n%s\n", e.LoadAfter, verdict)
}
