package config

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/portsplice/portsplice/internal/listener"
)

// environmentPrefix begins the name of every variable that the program reads.
const environmentPrefix = "PORTSPLICE_"

// fileVariable names the file of options.
const fileVariable = environmentPrefix + "CONFIG"

// uses says which options a protocol has a use for, in order: a variable, or the top level of the file, may have others, which
// its ports do not look at.
var uses = map[listener.Protocol][]string{
	listener.TCP: {"accept-proxy-protocol", "access-log", "dial-timeout", "engine", "local-bypass", "log-format", "proxy-protocol",
		"splice", "transparent"},
	listener.UDP:  {"access-log", "engine", "log-format", "max-flows", "transparent", "udp-blocks", "udp-timeout"},
	listener.SCTP: {"access-log", "dial-timeout", "log-format", "transparent"},
}

// others are variables with the prefix that are not options: of the shim, of builds that measure themselves, and of the
// tests.
var others = []string{"PORTSPLICE_WORKER", "PORTSPLICE_NO_WORKER", "PORTSPLICE_PROGRAM", "PORTSPLICE_CPUPROFILE",
	"PORTSPLICE_TEST_BACKEND"}

// ofEnvironment gives the variables that are options, and the one that names the file. The warnings are of variables that
// nothing reads. It is called for each port, mostly with none.
func ofEnvironment(environment []string) (variables map[string]string, warnings []string) {
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, environmentPrefix) || slices.Contains(others, name) {
			continue
		}
		if known := knownVariables(); !slices.Contains(known, name) {
			warnings = append(warnings, unknownVariable(name, known))
			continue
		}
		if variables == nil {
			variables = make(map[string]string)
		}
		variables[name] = value
	}
	return variables, warnings
}

// knownVariables are all that are read.
var knownVariables = sync.OnceValue(func() []string {
	known := []string{fileVariable}
	new(Config).defaults().VisitAll(func(option *flag.Flag) { known = append(known, variable(option.Name)) })
	return known
})

// variable is the name of an option in the environment.
func variable(option string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// unknownVariable says that a variable means nothing, and which one may have been meant.
func unknownVariable(name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return fmt.Sprintf("environment: %s is not a variable of portsplice; %s is", name, best)
	}
	return fmt.Sprintf("environment: %s is not a variable of portsplice (\"portsplice -h\" names them)", name)
}

// nearest gives the name that an unknown one may have been meant for; empty if none is near.
func nearest(name string, known []string) (best string) {
	least := len(name) / 3 // beyond a third of it, it is another word
	for _, k := range known {
		if d := distance(name, k); d <= least && (d < least || best == "" || k < best) {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters have to be put in, taken out or replaced to make b of a (Levenshtein's).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
