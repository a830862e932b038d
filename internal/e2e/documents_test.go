//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// documents are those whose commands are for readers to type.
var documents = []string{"README.md", "docs/migrating.md", "docs/operations.md", "docs/client-addresses.md", "docs/local-bypass.md",
	"docs/options.md", "docs/profiling.md", "docs/scale.md"}

// elsewhere says which file runs a command of a document, and by which words. TestDocuments runs all others.
var elsewhere = map[string][2]string{
	"make run":     {".ci/run", "make run"},
	"make test":    {".ci/run", "make test"},
	"make build":   {"Makefile", "e2e: shim-packages build"},
	"make install": {"internal/e2e/install_test.go", `"make", "-C", "../..", "install"`},
	"sha256sum --check --ignore-missing SHA256SUMS": {"internal/packaging/release_test.go", `"sha256sum", "--check"`},
	"tar -C /usr/local --strip-components 1 -xzf portsplice-*-linux-amd64.tar.gz": {
		"internal/packaging/release_test.go", `"--strip-components", "1", "-xzf"`},
	"apt install ./bin/packages/portsplice_*_amd64.deb": {"internal/e2e/install_test.go", `"apt-get", "install"`},
	"rootless: portsplicectl install":                   {"internal/e2e/rootless_test.go", `"systemctl --user restart docker", "install")`},
	"rootless: systemctl --user restart docker":         {"internal/e2e/rootless_test.go", "restart()"},
	"rootless: portsplicectl ps":                        {"internal/e2e/rootless_test.go", `page, "ps")`},
	"rootless: portsplicectl doctor":                    {"internal/e2e/rootless_test.go", `"doctor")`},
	"rootless: portsplicectl uninstall":                 {"internal/e2e/rootless_test.go", `"systemctl --user restart docker", "uninstall")`},
	"make profile WORK=pingpong/size=64/conns=64":       {".ci/run", "make profile WORK=pingpong/size=64/conns=64"},
	"cp bin/portsplice bin/before":                      {".ci/run", "cp bin/portsplice bin/before"},
	"make build compare OLD=bin/before NEW=bin/portsplice WORK=pingpong/size=64/conns=64,crr": {
		".ci/run", "make build compare OLD=bin/before NEW=bin/portsplice WORK=pingpong/size=64/conns=64,crr"},
	"nft add table inet portsplice":    {"cmd/portsplice/transparent_linux_test.go", `"nft add table"`},
	"nft delete table inet portsplice": {"internal/e2e/transparent_test.go", `"nft delete table"`},
	"iptables -t mangle -A PREROUTING -m socket --transparent -j MARK --set-mark 0x73": {
		"cmd/portsplice/transparent_linux_test.go", `"iptables -t mangle"`},
	"bpftool cgroup show /sys/fs/cgroup": {"internal/e2e/bypass_test.go", `"bpftool", "cgroup", "show"`},
	"bpftool map dump name bypass_ports": {"internal/e2e/bypass_test.go", `"bpftool", "map", "dump"`},
}

// prints has what commands say besides that they succeed.
var prints = map[string]string{
	"portsplicectl install --dry-run":                              "would ", // set an option, or make a link
	"portsplicectl install":                                        "dockerd",
	"portsplicectl uninstall":                                      "dockerd",
	"portsplicectl doctor":                                         "dockerd",
	"portsplicectl ps":                                             "0.0.0.0:443/tcp",
	"portsplicectl ps 443":                                         "127.0.0.1:",
	"portsplicectl ps --json":                                      `"port":"0.0.0.0:443/tcp"`,
	"portsplicectl config 443/tcp":                                 "0.0.0.0:443/tcp",
	"portsplicectl check new.json":                                 "new.json",
	"portsplicectl reload":                                         "read the options of",
	"journalctl -t portsplice -p warning":                          "connection refused",
	"journalctl -t portsplice PORTSPLICE_PORT=0.0.0.0:443/tcp":     "127.0.0.1:",
	"journalctl -t portsplice PORTSPLICE_OPERATION=access -o json": `"PORTSPLICE_OPERATION":"access"`,
}

// endless are commands that go on until they are interrupted, and what they print at last while the port has clients.
var endless = map[string]string{
	"portsplicectl ps --watch":                       "0.0.0.0:443/tcp",
	"portsplicectl exporter --listen 127.0.0.1:9747": "http://127.0.0.1:9747/metrics",
	"portsplicectl trace":                            "0.0.0.0:443",
	"portsplicectl trace 443":                        "0.0.0.0:443",
	"portsplicectl trace --json":                     "0.0.0.0:443",
}

// TestDocuments runs each command of the documents, in their order and as it is written there, on a machine with a dockerd and a
// journal; or knows who does. "sudo" is left out, as there is nobody but root, and a restart of docker is the test's.
func TestDocuments(t *testing.T) {
	t.Setenv("PORTSPLICE_ACCESS_LOG", "on")
	sandboxSystem(t)
	says(t, false, "", "make", "-C", "../..", "install")
	defer func(ours string) { program = ours }(program)
	program = "" // dockerd finds one by itself
	d := startDaemon(t)
	startJournal(t)
	dir := t.TempDir() // where the reader is
	c := d.run(t, port{"tcp", 443, httpPort, ""}, port{"tcp", 80, 9, ""})
	done := map[string]bool{}
	for _, command := range commands(t, dir) {
		name, text := command[0], command[1]
		switch {
		case done[text] && !strings.Contains(text, "install") && !strings.HasPrefix(text, "systemctl"):
		case elsewhere[text] != [2]string{}:
			where := elsewhere[text]
			if file, err := os.ReadFile(filepath.Join("../..", where[0])); err != nil || !strings.Contains(string(file), where[1]) {
				t.Errorf("%s: %s is to be run by %s, where nothing says %q (%v)", name, text, where[0], where[1], err)
			}
		case text == "systemctl restart docker":
			d.stop(t)
			d.start(t)
			c.start(t)
			awaitPage(t, "http://127.0.0.1:443/")
		case endless[text] != "":
			d.typeEndless(t, name, dir, text)
		default:
			d.typeCommand(t, name, dir, text)
		}
		done[text] = true
	}
	for text := range maps.Keys(elsewhere) {
		if !done[text] {
			t.Errorf("no document has %q", text)
		}
	}
}

// aCommand begins with the name of a program, which neither JSON nor a unit file nor what programs print does.
var aCommand = regexp.MustCompile(`^(sudo )?[a-z][a-z0-9-]+( |$)`)

// Within sentences there are commands, too, and targets of make, which the Makefile must have.
var (
	inSentence = regexp.MustCompile("`(portsplicectl (?:ps|check|config|reload|trace)[^`]*)`")
	aTarget    = regexp.MustCompile("`make ([a-z-]+)(?: [A-Z_]+=[^` ]+)*`")
)

// commands are those of the documents, each with where it is. A JSON file that a block shows is left in the
// directory as new.json.
func commands(t *testing.T, dir string) (all [][2]string) {
	t.Helper()
	var inSentences [][2]string // which are in no order: they come last, when portsplice serves the ports
	makefile, err := os.ReadFile("../../Makefile")
	rig.Must(t, err)
	for _, document := range documents {
		text, err := os.ReadFile(filepath.Join("../..", document))
		rig.Must(t, err)
		who := ""   // types it, if not root
		fence := "" // what the block is said to be in
		fenced := false
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			where := fmt.Sprintf("%s:%d", document, i+1)
			if language, is := strings.CutPrefix(line, "```"); is {
				if fence, fenced = language, !fenced; fenced && language == "sh" { // which a test runs as a whole
					all = append(all, [2]string{where, lines[i+1]})
				}
				continue
			}
			if !fenced && !strings.HasPrefix(line, "    ") {
				if heading, is := strings.CutPrefix(line, "## "); is && heading == "Rootless" {
					who = "rootless: "
				} else if is {
					who = ""
				}
				for _, found := range inSentence.FindAllStringSubmatch(line, -1) {
					inSentences = append(inSentences, [2]string{where, found[1]})
				}
				for _, found := range aTarget.FindAllStringSubmatch(line, -1) {
					if !strings.Contains(string(makefile), "\n"+found[1]+":") {
						t.Errorf("%s: the Makefile has no %q", where, found[1])
					}
				}
				continue
			}
			if fence != "" || !aCommand.MatchString(strings.TrimSpace(line)) {
				continue
			}
			line, _, _ = strings.Cut(line, " # ")
			for command := range strings.SplitSeq(line, " && ") {
				command = strings.TrimPrefix(strings.TrimSpace(command), "sudo ")
				all = append(all, [2]string{where, who + command})
			}
		}
	}
	options, err := os.ReadFile("../../docs/options.md")
	rig.Must(t, err)
	_, example, _ := strings.Cut(string(options), "```json\n")
	example, _, _ = strings.Cut(example, "```")
	rig.Must(t, os.WriteFile(filepath.Join(dir, "new.json"), []byte(example), 0o644))
	if all = append(all, inSentences...); len(all) < 30 {
		t.Fatalf("%d commands in %v", len(all), documents)
	}
	return all
}

// shell is a command as a reader types it.
func (d *daemon) shell(ctx context.Context, dir, text string) *exec.Cmd {
	text = strings.Replace(text, "docker run ", "docker run -d ", 1)
	if before, is := strings.CutSuffix(text, " ..."); is {
		text = before + " " + image
	}
	if strings.HasPrefix(text, "go ") || strings.HasPrefix(text, "make ") {
		dir = "../.."
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket())
	return cmd
}

func (d *daemon) typeCommand(t *testing.T, where, dir, text string) {
	t.Helper()
	if strings.HasPrefix(text, "portsplicectl ps") {
		dial(t, "tcp", "127.0.0.1:443") // who is shown
	}
	var out []byte
	var err error
	if !waitFor(func() bool { // what is logged takes a while to be in the journal
		if strings.HasPrefix(text, "journalctl") {
			visit("http://127.0.0.1:80/") // nobody listens in the container, which is logged
		}
		out, err = d.shell(t.Context(), dir, text).CombinedOutput()
		return err == nil && strings.Contains(string(out), prints[text])
	}) {
		t.Errorf("%s: %s: %v, says %q, want %q", where, text, err, out, prints[text])
	}
}

// typeEndless interrupts the command once it has said what it should, of clients that come meanwhile.
func (d *daemon) typeEndless(t *testing.T, where, dir, text string) {
	t.Helper()
	cmd := d.shell(t.Context(), dir, "exec "+text)
	var out rig.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	rig.Must(t, cmd.Start())
	says := waitFor(func() bool {
		visit("http://127.0.0.1:443/")
		return strings.Contains(out.String(), endless[text])
	})
	rig.Check(t, cmd.Process.Signal(unix.SIGINT))
	if err := cmd.Wait(); err != nil || !says {
		t.Errorf("%s: %s: %v, says %q, want %q", where, text, err, out.String(), endless[text])
	}
}

// visit asks for a page, which may not be there.
func visit(page string) {
	if resp, err := visitor.Get(page); err == nil {
		_ = resp.Body.Close() // whatever it is
	}
}

// startJournal starts a journal, which is kept in memory: /run is the test's own.
func startJournal(t *testing.T) {
	t.Helper()
	rig.Must(t, os.MkdirAll("/run/systemd/journal", 0o755))
	journal := exec.Command("/lib/systemd/systemd-journald")
	rig.Must(t, journal.Start())
	t.Cleanup(func() {
		rig.Check(t, journal.Process.Signal(unix.SIGTERM))
		_ = journal.Wait() // it has stored what there was
		rig.Check(t, os.RemoveAll("/run/systemd"))
	})
	eventually(t, "the journal listens", func() bool {
		_, err := os.Stat("/run/systemd/journal/socket")
		return err == nil
	})
}
