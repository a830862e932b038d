package install

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const ours = "/usr/libexec/docker/portsplice-shim"

// TestWithPath: what is added looks like what is around it, nothing else moves, and taking it out gives the file back.
func TestWithPath(t *testing.T) {
	const added = `"userland-proxy-path": "/usr/libexec/docker/portsplice-shim"`
	for _, test := range []struct{ name, before, after string }{
		{"two spaces", "{\n  \"debug\": true\n}\n", "{\n  \"debug\": true,\n  " + added + "\n}\n"},
		{"a tab, no last line break", "{\n\t\"debug\": true\n}", "{\n\t\"debug\": true,\n\t" + added + "\n}"},
		{"Windows", "{\r\n    \"a\" : 1,\r\n    \"b\" : 2\r\n}\r\n",
			"{\r\n    \"a\" : 1,\r\n    \"b\" : 2,\r\n    " + added + "\r\n}\r\n"},
		{"one line", `{"a": 1}`, `{"a": 1, ` + added + `}`},
		{"one line, several", `{ "a": 1, "b": [1,  2] }`, `{ "a": 1, "b": [1,  2], ` + added + ` }`},
		{"no space", `{"a":1}`, `{"a":1,` + strings.ReplaceAll(added, " ", "") + `}`},
		{"blank lines", "\n{\n  \"a\": {\n},\n\n  \"b\":\n 1e3\n\n}", "\n{\n  \"a\": {\n},\n\n  \"b\":\n 1e3,\n  " +
			strings.ReplaceAll(added, ": ", ":\n ") + "\n\n}"},
		{"escapes are kept", `{"a\/\u0041": "\u00e9é", "b": 1.0}`, `{"a\/\u0041": "\u00e9é", "b": 1.0, ` + added + `}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			after, err := withPath([]byte(test.before), ours)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.after, string(after)); diff != "" {
				t.Error(diff)
			}
			before, err := withoutPath(after)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.before, string(before)); diff != "" {
				t.Error("taken out again:", diff)
			}
		})
	}
}

// TestPathAlone: a file that says nothing else. (One of an empty object is restored from its copy.)
func TestPathAlone(t *testing.T) {
	for before, after := range map[string]string{
		"":       "{\n  \"userland-proxy-path\": \"/usr/libexec/docker/portsplice-shim\"\n}\n",
		" \n":    "{\n  \"userland-proxy-path\": \"/usr/libexec/docker/portsplice-shim\"\n}\n",
		"{}":     "{\"userland-proxy-path\": \"/usr/libexec/docker/portsplice-shim\"}",
		"{\n}\n": "{\n  \"userland-proxy-path\": \"/usr/libexec/docker/portsplice-shim\"\n}\n",
		`{"userland-proxy-path" : "/old/portsplice"}`: `{"userland-proxy-path" : "/usr/libexec/docker/portsplice-shim"}`,
	} {
		got, err := withPath([]byte(before), ours)
		if err != nil || string(got) != after {
			t.Errorf("%q became %q, %v; want %q", before, got, err, after)
		}
		if left, err := withoutPath(got); left != nil || err != nil {
			t.Errorf("%q without it is %q, %v; want none", got, left, err)
		}
	}
}

// TestWithoutPath: wherever somebody has put it.
func TestWithoutPath(t *testing.T) {
	const it = `"userland-proxy-path": "/x/portsplice"`
	for before, after := range map[string]string{
		"{\n  " + it + ",\n  \"a\": 1\n}":              "{\n  \"a\": 1\n}",
		"{\n  \"a\": 1,\n  " + it + ",\n  \"b\": 2\n}": "{\n  \"a\": 1,\n  \"b\": 2\n}",
		"{\n  \"a\": 1 ,\n  " + it + "\n}":             "{\n  \"a\": 1\n}",
		`{` + it + `, "a": 1}`:                         `{"a": 1}`,
		`{"a": 1}`:                                     `{"a": 1}`,
	} {
		if got, err := withoutPath([]byte(before)); err != nil || string(got) != after {
			t.Errorf("%q became %q, %v; want %q", before, got, err, after)
		}
	}
}

func TestRead(t *testing.T) {
	for file, want := range map[string]settings{
		"":                         {},
		`{"userland-proxy": true}`: {},
		`{"userland-proxy": false, "userland-proxy-path": "/x"}`: {off: true, path: "/x"},
		`{"userland-proxy-path": "\/y"}`:                         {path: "/y"},
	} {
		if got, err := read([]byte(file)); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", file, got, err, want)
		}
	}
	for file, why := range map[string]string{
		"{":                          "not JSON",
		"{} {}":                      "not JSON",
		"{\"a\": 1,}":                "not JSON",
		"{\n// why\n\"a\": 1}":       "not JSON",
		"[]":                         "not a JSON object",
		"null":                       "not a JSON object",
		"\xef\xbb\xbf{}":             "not JSON",
		`{"userland-proxy": "no"}`:   `"userland-proxy" has a value`,
		`{"userland-proxy-path": 1}`: `"userland-proxy-path" has a value`,
		`{"userland-proxy-path": "/a", "userland-proxy-path": "/b"}`: "twice",
	} {
		if _, err := read([]byte(file)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v; want an error that says %q", file, err, why)
		}
	}
}

// FuzzPath: whatever a file says, all but the option is the same afterwards, and nothing is left when it is taken out.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"", "{}", "{\n \"a\" : [1 , {}]\n}", `{"userland-proxy-path":"/x", "b":null , "userland-proxy":false }`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		original := bytes.Clone(before)
		after, err := withPath(before, ours)
		if err != nil {
			return
		}
		if !bytes.Equal(before, original) {
			t.Fatal("the file was changed in place")
		}
		if s, err := read(after); err != nil && !strings.Contains(err.Error(), "a value") || err == nil && s.path != ours {
			t.Fatalf("%q says %+v, %v", after, s, err)
		}
		left, err := withoutPath(after)
		if err != nil {
			t.Fatal(err)
		}
		got, want := map[string]any{}, map[string]any{}
		if left != nil {
			if err := json.Unmarshal(left, &got); err != nil {
				t.Fatal(err)
			}
		}
		if len(bytes.TrimSpace(before)) > 0 {
			if err := json.Unmarshal(before, &want); err != nil {
				t.Fatal(err)
			}
		}
		if delete(want, pathOption); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q", before, left)
		}
	})
}

func TestMajor(t *testing.T) {
	for version, want := range map[string]int{
		"20.10.24+dfsg1": 20,
		"28.5.2":         28,
		"29.0.0-rc.1":    29,
		"Docker version 20.10.24+dfsg1, build 5d6db84": 20,
		"Docker version 1.13.1, build 092cba3":         1,
	} {
		if got, err := major(version); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", version, got, err, want)
		}
	}
	for _, version := range []string{"", "dev", "Docker version dev, build 5d6db84", "library-import"} {
		if got, err := major(version); err == nil {
			t.Errorf("%q: %d; want an error", version, got)
		}
	}
	if got := number("Docker version 20.10.24+dfsg1, build 5d6db84"); got != "20.10.24+dfsg1" {
		t.Errorf("number: %q", got)
	}
}

func TestFlag(t *testing.T) {
	d := Daemon{Args: []string{"-H", "fd://", "--userland-proxy=false", "--config-file", "/a", "--config-file=/b", "--userland-proxy-path"}}
	for name, want := range map[string]string{"userland-proxy": "false", "config-file": "/b", "userland-proxy-path": ""} {
		if got, there := d.Flag(name); !there || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, there, want)
		}
	}
	if got, there := (Daemon{Args: []string{"--userland-proxy", "--debug"}}).Flag("userland-proxy"); got != "true" || !there {
		t.Errorf("a truth value without one is %q, %v", got, there)
	}
	if _, there := d.Flag("config"); there {
		t.Error("an option is found by its beginning")
	}
}
