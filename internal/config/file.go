package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/portsplice/portsplice/internal/listener"
)

// DefaultFile is the file of options if PORTSPLICE_CONFIG names no other.
const DefaultFile = "/etc/docker/portsplice.json"

// portsKey is the key of the sections.
const portsKey = "ports"

// largestFile bounds the file: some 10,000 sections. It is read anew for each port that starts.
const largestFile = 1 << 20

// FileError is what is wrong with the file.
type FileError struct {
	Path string
	Line int // that is wrong, from 1; zero: the file as a whole
	Err  error
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err)
}

// Unwrap gives the reason.
func (e *FileError) Unwrap() error { return e.Err }

// file is what the file says; nil: there is none. What is wrong is kept beside what is right: it may be of other ports.
type file struct {
	path     string
	newlines []int // offsets
	options  *flag.FlagSet
	entries  []entry // of the top level
	sections []*section
	faults   []fault
}

// section has options for some ports.
type section struct {
	Ports
	name    string
	line    int
	entries []entry
}

// entry is an option's value in the file, in the form that its flag.Value prints.
type entry struct {
	option, value string
	line          int
}

// fault is something that is wrong.
type fault struct {
	line int
	err  error
	of   []*section // it is of the ports that are in all of these; without any it is of every port
}

// Check gives all that is wrong with a file, by line: each error is a *FileError. One that does not exist is fine.
func Check(path string) (errs []error) {
	f, err := read(path)
	if err != nil {
		return []error{err}
	}
	if f == nil {
		return nil
	}
	faults := append(f.faults, overlaps(f.sections)...)
	slices.SortStableFunc(faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	for _, wrong := range faults {
		errs = append(errs, &FileError{f.path, wrong.line, wrong.err})
	}
	if errs == nil {
		errs = f.together()
	}
	return errs
}

// together finds options that do not go together, where nobody but the file tells any: in the top level, or else in each
// section.
func (f *file) together() (errs []error) {
	try := func(line int, p listener.Protocol, frontend netip.AddrPort) {
		c := Config{Protocol: p, Frontend: frontend}
		settings, err := f.settle(c.defaults(), p, frontend, nil, nil)
		if err = errors.Join(err, c.checkTogether(settings)); err != nil {
			errs = append(errs, &FileError{f.path, line, err})
		}
	}
	try(0, listener.TCP, netip.AddrPort{}) // it is in no section; what does not go together is of TCP, or of an SCTP port that need not be
	if errs != nil {
		return errs
	}
	for _, s := range f.sections {
		addr := s.Addr
		if !addr.IsValid() {
			addr = netip.IPv4Unspecified()
		}
		try(s.line, s.Protocol, netip.AddrPortFrom(addr, s.First))
	}
	return errs
}

// read reads a file, if there is one. The error says why it cannot be read at all.
func read(path string) (*file, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &FileError{path, 0, errors.Unwrap(err)}
	case !info.Mode().IsRegular():
		return nil, &FileError{path, 0, errors.New("not a regular file")} // one of another kind may never end
	case info.Size() > largestFile:
		return nil, &FileError{path, 0, fmt.Errorf("larger than %d bytes", largestFile)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &FileError{path, 0, errors.Unwrap(err)}
	}
	f := &file{path: path, options: new(Config).defaults()}
	f.parse(data)
	return f, nil
}

// of gives the entries that are for a port, by option, or what is wrong with the file that is of the port.
func (f *file) of(protocol listener.Protocol, frontend netip.AddrPort) (map[string]entry, error) {
	if f == nil {
		return nil, nil
	}
	elsewhere := func(s *section) bool { return !s.Contain(protocol, frontend) }
	sections := slices.DeleteFunc(slices.Clone(f.sections), elsewhere)
	var errs []error
	for _, wrong := range append(f.faults, overlaps(sections)...) {
		if !slices.ContainsFunc(wrong.of, elsewhere) {
			errs = append(errs, &FileError{f.path, wrong.line, wrong.err})
		}
	}
	all := make(map[string]entry)
	for _, s := range append([]*section{{entries: f.entries}}, sections...) {
		for _, e := range s.entries {
			all[e.option] = e
		}
	}
	return all, errors.Join(errs...)
}

// overlaps finds options that have different values for one port.
func overlaps(sections []*section) (faults []fault) {
	for i, b := range sections {
		for _, a := range sections[:i] {
			if !a.meet(b.Ports) {
				continue
			}
			for _, its := range a.entries {
				differs := func(e entry) bool { return e.option == its.option && e.value != its.value }
				if at := slices.IndexFunc(b.entries, differs); at >= 0 {
					here := b.entries[at]
					err := fmt.Errorf("%q: %q is %q here and %q in line %d, for %q: both are for the same ports",
						b.name, its.option, here.value, its.value, its.line, a.name)
					faults = append(faults, fault{here.line, err, []*section{a, b}})
				}
			}
		}
	}
	return faults
}

// parse takes the file's text in.
func (f *file) parse(data []byte) {
	for i, c := range data {
		if c == '\n' {
			f.newlines = append(f.newlines, i)
		}
	}
	var all json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		var syntax *json.SyntaxError // it can be no other
		errors.As(err, &syntax)
		f.faults = []fault{{line: f.line(int(syntax.Offset) - 1), err: err}}
		return
	}
	at := bytes.Index(data, all) // behind what is blank
	f.object(member{value: all, at: at, line: f.line(at)}, nil, func(m member) {
		if m.key != portsKey {
			f.entries = f.entry(f.entries, m, nil)
			return
		}
		f.object(m, nil, func(m member) {
			ports, err := ParsePorts(m.key)
			if err != nil {
				f.wrong(m, nil, err)
				return
			}
			s := &section{Ports: ports, name: m.key, line: m.line}
			f.sections = append(f.sections, s)
			f.object(m, s, func(m member) { s.entries = f.entry(s.entries, m, s) })
		})
	})
}

// member is a key of an object and its value, or all of the file.
type member struct {
	key   string
	value []byte
	at    int // offset of the value
	line  int // of the key
}

// object calls each for the members of an object, which is a section's or that of m's key.
func (f *file) object(m member, of *section, each func(member)) {
	decoder := json.NewDecoder(bytes.NewReader(m.value))
	if open, _ := decoder.Token(); open != json.Delim('{') { // errors are none here and below: the text was checked
		if of != nil {
			m.key = "" // it is the section's name, which wrong says
		}
		f.wrong(m, of, errors.New(`must be an object: { "key": value, ... }`))
		return
	}
	lines := make(map[string]int)
	for decoder.More() {
		key, _ := decoder.Token()
		inner := member{key: key.(string), line: f.line(m.at + int(decoder.InputOffset()) - 1)}
		_ = decoder.Decode((*json.RawMessage)(&inner.value))
		inner.at = m.at + int(decoder.InputOffset()) - len(inner.value)
		if line, twice := lines[inner.key]; twice {
			f.wrong(inner, of, fmt.Errorf("it is in line %d, too", line))
			continue
		}
		lines[inner.key] = inner.line
		each(inner)
	}
}

// entry adds a member to the entries of a section, or of the top level, if it is right.
func (f *file) entry(entries []entry, m member, of *section) []entry {
	option := f.options.Lookup(m.key)
	text, err := scalar(m.value)
	switch {
	case option == nil:
		f.wrong(m, of, f.unknown(m.key, of))
		return entries
	case of != nil && !slices.Contains(uses[of.Protocol], m.key):
		f.wrong(m, of, fmt.Errorf("%s has no use for it", of.Protocol))
		return entries
	case err == nil && text == "":
		text = option.DefValue // so a section undoes what the top level says
	case err == nil:
		if err = option.Value.Set(text); err == nil {
			text = option.Value.String()
		}
	}
	if err != nil {
		f.wrong(m, of, fmt.Errorf("%s: %w", m.value, err))
		return entries
	}
	return append(entries, entry{m.key, text, m.line})
}

// unknown says that a key of a section, or of the top level, means nothing, and which one may have been meant.
func (f *file) unknown(key string, of *section) error {
	known := []string{portsKey}
	f.options.VisitAll(func(option *flag.Flag) { known = append(known, option.Name) })
	if of != nil {
		known = uses[of.Protocol]
	}
	if best := nearest(key, known); best != "" {
		return fmt.Errorf("no such option; %q is one", best)
	}
	return errors.New(`no such option ("portsplice -h" names them)`)
}

// scalar gives a value as it would stand on a command line.
func scalar(value []byte) (text string, err error) {
	switch value[0] {
	case '"':
		err = json.Unmarshal(value, &text)
	case '[':
		var list []string
		if json.Unmarshal(value, &list) != nil {
			return "", errors.New("the elements of a list must be strings")
		}
		text = strings.Join(list, ",")
	case '{', 'n':
		return "", errors.New("must be a string, a number, true, false or a list of strings")
	default:
		text = string(value)
	}
	return text, err
}

// wrong notes a fault of a member. It is of a section's ports, or of every port.
func (f *file) wrong(m member, of *section, err error) {
	if m.key != "" {
		err = fmt.Errorf("%q: %w", m.key, err)
	}
	wrong := fault{line: m.line, err: err}
	if of != nil {
		wrong.of, wrong.err = []*section{of}, fmt.Errorf("%q: %w", of.name, err)
	}
	f.faults = append(f.faults, wrong)
}

// line is the line of an offset.
func (f *file) line(at int) int {
	line, _ := slices.BinarySearch(f.newlines, at)
	return line + 1
}
