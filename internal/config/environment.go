package config

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/portsplice/portsplice/internal/listener"
)

// environmentPrefix begins the name of every variable that the program reads.
const environmentPrefix = "PORTSPLICE_"

// uses says which options a protocol has a use for: a variable that it has none for cannot make its port fail.
var uses = map[listener.Protocol][]string{
	listener.TCP:  {"engine", "splice", "dial-timeout", "local-bypass"},
	listener.UDP:  {"engine", "udp-timeout", "max-flows", "udp-blocks"},
	listener.SCTP: {"dial-timeout"},
}

// others are variables with the prefix that are not options: of the shim, of builds that measure themselves, and of the
// tests.
var others = []string{"PORTSPLICE_WORKER", "PORTSPLICE_NO_WORKER", "PORTSPLICE_PROGRAM", "PORTSPLICE_CPUPROFILE",
	"PORTSPLICE_TEST_BACKEND"}

// fromEnvironment sets the options that the protocol uses and the command line did not set. The warnings are of
// variables that nothing reads.
func fromEnvironment(
	ours *flag.FlagSet, p listener.Protocol, onCommandLine map[string]bool, environment []string,
) (warnings []string, err error) {
	options := make(map[string]*flag.Flag)
	ours.VisitAll(func(f *flag.Flag) { options[variable(f.Name)] = f })
	var errs []error
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, environmentPrefix) || slices.Contains(others, name) {
			continue
		}
		f, known := options[name]
		switch {
		case !known:
			warnings = append(warnings, unknownVariable(name, options))
		case value == "" || onCommandLine[f.Name] || !slices.Contains(uses[p], f.Name):
		default:
			if err := f.Value.Set(value); err != nil {
				errs = append(errs, fmt.Errorf("environment: %s=%q: %w", name, value, err))
			}
		}
	}
	return warnings, errors.Join(errs...)
}

// variable is the name of an option in the environment.
func variable(option string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// unknownVariable says that a variable means nothing, and which one may have been meant.
func unknownVariable(name string, options map[string]*flag.Flag) string {
	best, least := "", len(name)/3 // beyond a third of it, it is another word
	for known := range options {
		if d := distance(name, known); d <= least && (d < least || best == "" || known < best) {
			best, least = known, d
		}
	}
	if best == "" {
		return fmt.Sprintf("environment: %s is not a variable of portsplice (\"portsplice -h\" names them)", name)
	}
	return fmt.Sprintf("environment: %s is not a variable of portsplice; %s is", name, best)
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
