package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portsplice/portsplice/internal/listener"
)

// Setting is an option of a port, with its value.
type Setting struct {
	Option string `json:"option"` // its flag's name
	Value  string `json:"value"`
	Source string `json:"source"` // where it comes from: the flag, the variable, FILE:LINE, or "default"
}

// defaultSource is a Setting's Source if nobody has told it.
const defaultSource = "default"

// Explain is Parse, and tells of every option that the port has a use for.
func Explain(args, environment []string) (Config, []Setting, error) {
	return parseAll(args, environment, io.Discard)
}

// ExplainPort tells of every option of a port whose proxy has none on its command line.
func ExplainPort(p listener.Protocol, frontend netip.AddrPort, environment []string) ([]Setting, error) {
	c := Config{Protocol: p, Frontend: frontend}
	settings, _, err := settle(c.defaults(), p, frontend, nil, environment)
	if err != nil {
		return nil, err
	}
	return settings, c.checkTogether(settings)
}

// checkTogether checks what does not go together, and says where it comes from.
func (c *Config) checkTogether(settings []Setting) error {
	err := c.checkHeaders()
	if err == nil {
		err = c.checkTransparent()
	}
	if err == nil {
		return nil
	}
	var from []string
	for _, s := range settings {
		if s.Source != defaultSource && s.Source != "-"+s.Option {
			from = append(from, fmt.Sprintf("%s by %s", s.Option, s.Source))
		}
	}
	if from == nil {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(from, ", "))
}

// settle sets the options that the command line did not set, and tells of those that the protocol has a use for. The
// warnings are of variables that nothing reads.
func settle(ours *flag.FlagSet, p listener.Protocol, frontend netip.AddrPort, onCommandLine map[string]bool,
	environment []string) (settings []Setting, warnings []string, err error) {
	variables, warnings := ofEnvironment(environment)
	path, err := fileOf(variables)
	if err != nil {
		return nil, warnings, err
	}
	f, err := read(path)
	if err != nil {
		return nil, warnings, err
	}
	settings, err = f.settle(ours, p, frontend, onCommandLine, variables)
	return settings, warnings, err
}

// settle is settle with variables that have been read.
func (f *file) settle(ours *flag.FlagSet, p listener.Protocol, frontend netip.AddrPort, onCommandLine map[string]bool,
	variables map[string]string) (settings []Setting, err error) {
	entries, err := f.of(p, frontend)
	errs := []error{err}
	settings = make([]Setting, 0, len(uses[p]))
	for _, name := range uses[p] {
		option, source, told, value := ours.Lookup(name), defaultSource, entries[name], ""
		if len(variables) > 0 {
			value = variables[variable(name)]
		}
		switch {
		case onCommandLine[name]:
			source = "-" + name
		case value != "":
			source = variable(name)
			if err := option.Value.Set(value); err != nil {
				errs = append(errs, fmt.Errorf("environment: %s=%q: %w", source, value, err))
			}
		case told.line != 0:
			source = fmt.Sprintf("%s:%d", f.path, told.line)
			if told.value != option.DefValue { // which it has
				errs = append(errs, option.Value.Set(told.value)) // which it took before
			}
		}
		settings = append(settings, Setting{name, option.Value.String(), source})
	}
	return settings, errors.Join(errs...)
}

// fileOf is where the file is.
func fileOf(variables map[string]string) (string, error) {
	switch path := variables[fileVariable]; {
	case path == "":
		return DefaultFile, nil
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("environment: %s=%q: not an absolute path", fileVariable, path)
	default:
		return path, nil
	}
}

// File is where the file of options is for programs with this environment.
func File(environment []string) (string, error) {
	variables, _ := ofEnvironment(environment)
	return fileOf(variables)
}

// Change is an option whose value is to be another one.
type Change struct {
	Option string `json:"option"`
	From   string `json:"from"`
	To     string `json:"to"`
	Live   bool   `json:"live"`             // it can change while connections live
	Reason string `json:"reason,omitempty"` // why it does not, if not for want of being published anew
}

// Adopt gives c with what can change of next while connections live, and all that differs between the two. Both are of
// the same port.
func (c Config) Adopt(next Config) (Config, []Change) {
	var changes []Change
	from, to := c.options(), next.options()
	from.VisitAll(func(option *flag.Flag) {
		before, after := option.Value.String(), to.Lookup(option.Name).Value.String()
		if before == after || !slices.Contains(uses[c.Protocol], option.Name) {
			return
		}
		change := Change{Option: option.Name, From: before, To: after}
		switch {
		case !slices.Contains(live, option.Name):
		case option.Name == "local-bypass" && c.Transparent == On: // whatever next has: it stays
			change.Reason = goAround("-transparent")
		default:
			change.Live = option.Value.Set(after) == nil
		}
		changes = append(changes, change)
	})
	return c, changes
}

// live are the options that can change while connections live, by an engine that can.
var live = []string{
	"dial-timeout", "splice", "udp-timeout", "max-flows", "udp-blocks", "local-bypass", "proxy-protocol",
	"accept-proxy-protocol", "log-format", "access-log",
}
