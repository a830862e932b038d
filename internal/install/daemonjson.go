package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"

	"github.com/tailscale/hujson"
)

// Names of dockerd's options, in daemon.json and on its command line.
const (
	proxyOption = "userland-proxy"
	pathOption  = "userland-proxy-path"
	fileOption  = "config-file"
)

// settings is what a daemon.json says of the proxy.
type settings struct {
	off  bool   // "userland-proxy": false
	path string // "userland-proxy-path"; empty if it is not there
}

// read gives the settings of a daemon.json, in which there may be nothing at all.
func read(file []byte) (s settings, err error) {
	object, _, err := parse(file)
	if err != nil || object == nil {
		return s, err
	}
	for _, option := range []string{proxyOption, pathOption} {
		at, err := find(object, option)
		if err != nil {
			return s, err
		}
		if at < 0 {
			continue
		}
		value, is := object.Members[at].Value.Value.(hujson.Literal)
		switch kind := value.Kind(); {
		case is && option == proxyOption && (kind == 't' || kind == 'f'):
			s.off = kind == 'f'
		case is && option == pathOption && kind == '"':
			s.path = value.String()
		default:
			return s, fmt.Errorf("%q has a value that dockerd does not take", option)
		}
	}
	return s, nil
}

// withPath gives the file with "userland-proxy-path" set, and every other byte of it as it was: a member that is added
// is written like the one before it.
func withPath(file []byte, path string) ([]byte, error) {
	object, whole, err := parse(file)
	if err != nil {
		return nil, err
	}
	if object == nil {
		return fmt.Appendf(nil, "{\n  %q: %s\n}\n", pathOption, []byte(hujson.String(path))), nil
	}
	at, err := find(object, pathOption)
	if err != nil {
		return nil, err
	}
	if at >= 0 {
		object.Members[at].Value.Value = hujson.String(path)
	} else {
		object.Members = append(object.Members, member(object, path))
	}
	return checked(file, whole.Pack(), func(all map[string]any) { all[pathOption] = path })
}

// withoutPath takes the member out again. The answer is nil if it was the only one.
func withoutPath(file []byte) ([]byte, error) {
	object, whole, err := parse(file)
	if err != nil || object == nil {
		return file, err
	}
	at, err := find(object, pathOption)
	if err != nil || at < 0 {
		return file, err
	}
	if len(object.Members) == 1 {
		return nil, nil
	}
	if at == len(object.Members)-1 {
		object.Members[at-1].Value.AfterExtra = nil // or there would be a comma after the last
	} else if at == 0 {
		object.Members[1].Name.BeforeExtra = object.Members[0].Name.BeforeExtra
	}
	object.Members = slices.Delete(object.Members, at, at+1)
	return checked(file, whole.Pack(), func(all map[string]any) { delete(all, pathOption) })
}

// parse gives the object that a daemon.json is, and the whole of which it is a part; nil if the file is empty.
func parse(file []byte) (*hujson.Object, hujson.Value, error) {
	if len(bytes.TrimSpace(file)) == 0 {
		return nil, hujson.Value{}, nil
	}
	if err := json.Unmarshal(file, new(any)); err != nil { // which knows no comments, as dockerd does not
		return nil, hujson.Value{}, fmt.Errorf("not JSON that dockerd would read: %w", err)
	}
	whole, err := hujson.Parse(file)
	if err != nil {
		return nil, whole, err
	}
	object, is := whole.Value.(*hujson.Object)
	if !is {
		return nil, whole, errors.New("not a JSON object")
	}
	return object, whole, nil
}

// find gives the place of a member, or -1. Of two with one name it is not said which counts.
func find(object *hujson.Object, name string) (int, error) {
	at := -1
	for i, m := range object.Members {
		literal, _ := m.Name.Value.(hujson.Literal)
		if literal.String() != name {
			continue
		}
		if at >= 0 {
			return -1, fmt.Errorf("%q is there twice", name)
		}
		at = i
	}
	return at, nil
}

// member makes a new last member of an object, with the space that the one before has.
func member(object *hujson.Object, path string) (m hujson.ObjectMember) {
	m.Name.Value, m.Value.Value = hujson.String(pathOption), hujson.String(path)
	if len(object.Members) == 0 {
		m.Value.BeforeExtra = hujson.Extra(" ")
		if bytes.ContainsRune(object.AfterExtra, '\n') { // the closing brace has a line of its own
			m.Name.BeforeExtra = append(lastLine(object.AfterExtra), "  "...)
		}
		return m
	}
	last := object.Members[len(object.Members)-1]
	m.Name.BeforeExtra, m.Value.BeforeExtra = lastLine(last.Name.BeforeExtra), bytes.Clone(last.Value.BeforeExtra)
	if len(object.Members) == 1 && len(m.Name.BeforeExtra) == 0 {
		m.Name.BeforeExtra = bytes.Clone(m.Value.BeforeExtra) // {"a": 1} has a space before values
	}
	return m
}

// lastLine gives the space from its last line break on.
func lastLine(space []byte) []byte {
	at := max(0, bytes.LastIndexByte(space, '\n'))
	if at > 0 && space[at-1] == '\r' {
		at--
	}
	return bytes.Clone(space[at:])
}

// checked gives after, which must say what before says but for the change.
func checked(before, after []byte, change func(map[string]any)) ([]byte, error) {
	var was, is map[string]any
	if err := errors.Join(json.Unmarshal(before, &was), json.Unmarshal(after, &is)); err != nil {
		return nil, err
	}
	want := maps.Clone(was)
	change(want)
	if !reflect.DeepEqual(want, is) {
		return nil, errors.New("it cannot be edited without changing something else")
	}
	return after, nil
}

// Ours says whether a path is that of a program of ours which dockerd may start, wherever it lies.
func Ours(program string) bool {
	base := path.Base(program)
	return base == Shim || base == Program || base == ByRootlessKit
}
