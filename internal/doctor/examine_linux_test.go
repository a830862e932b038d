package doctor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/install"
	"github.com/portsplice/portsplice/internal/processes"
)

func TestPublished(t *testing.T) {
	for line, want := range map[string]string{
		"docker-proxy -proto udp -host-ip 0.0.0.0 -host-port 53 -container-ip 198.18.0.2 -container-port 53":  "0.0.0.0:53/udp",
		"portsplice-shim -host-ip :: -host-port 80 -container-ip fd00::2 -container-port 8080 -use-listen-fd": "[::]:80/tcp",
		"portsplice worker":   "",
		"dockerd --host-port": "",
		"":                    "",
	} {
		if got := published(strings.Fields(line)); got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}

// TestLook: what a dockerd of 29.5 says of itself, and what follows of an older one from its file.
func TestLook(t *testing.T) {
	dir, err := os.MkdirTemp("", "look") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	started, err := processes.Process{PID: os.Getpid()}.Started()
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(started.Add(2 * inexact))) // what is written now was written after this process was started
	shim, other := put("portsplice-shim", ""), put("docker-proxy", "")
	config := filepath.Join(dir, "daemon.json")
	socket := filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	info := ""
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/info" || info == "" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, info) // the client says what is missing
	})}
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	const says = `{"ServerVersion": "29.5.0", "FirewallBackend": {"Driver": "iptables", "Info": [["EnableUserlandProxy", "true"], ["UserlandProxyPath", %q]]}}`
	for _, test := range []struct {
		name, info, path string // of the file
		want             Daemon
	}{
		{"it says", fmt.Sprintf(says, shim), shim, Daemon{Version: "29.5.0", Proxy: shim, From: "docker info", Ours: true}},
		{"it says, and the file says another", fmt.Sprintf(says, other), shim, Daemon{Version: "29.5.0", Proxy: other, From: "docker info", Stale: config}},
		{"it does not say", `{"ServerVersion": "20.10.24"}`, shim, Daemon{Version: "20.10.24", Proxy: shim, From: config, Ours: true, Stale: config}},
		{"it does not answer", "", other, Daemon{Proxy: other, From: config, Stale: config}},
	} {
		t.Run(test.name, func(t *testing.T) {
			info = test.info
			put("daemon.json", fmt.Sprintf(`{"userland-proxy-path": %q}`, test.path))
			got := look(t.Context(), install.Daemon{PID: os.Getpid(), Args: []string{"--host", "unix://" + socket, "--config-file", config}})
			if got.Descriptors.Limit == 0 {
				t.Error("its descriptors are not known")
			}
			got.Descriptors, got.PID = Descriptors{}, 0
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestExamine: what every kernel that we support has is found here, and the limits are read.
func TestExamine(t *testing.T) {
	found := map[string]State{}
	for _, f := range Examine(t.Context(), "test") {
		found[f.About] = f.State
	}
	for _, about := range []string{"splice", "UDP_GRO", "UDP_SEGMENT"} {
		if found[about] != OK {
			t.Errorf("%s is %q", about, found[about])
		}
	}
	for _, about := range []string{"dockerd", "ports", "SCTP", "Landlock", "net.ipv4.ip_local_port_range", "net.core.somaxconn",
		"fs.pipe-user-pages-soft"} {
		if found[about] == "" {
			t.Errorf("nothing is said about %s", about)
		}
	}
}

// TestPorts: a process with a proxy's command line is found as what it runs; what its environment says is its reason.
func TestPorts(t *testing.T) {
	dir := t.TempDir()
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"docker-proxy": ByDockerProxy, "portsplice": Alone, "portsplice-shim": Unserved}
	pids := map[int]string{}
	for name := range want {
		program := filepath.Join(dir, name)
		if err := os.WriteFile(program, shell, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "-c", "read line; :", "sh", "-proto", "udp", "-host-ip", "127.0.0.1", "-host-port", "53",
			"-container-ip", "127.0.0.2", "-container-port", "53")
		cmd.Env = []string{"PORTSPLICE_NO_WORKER=a reason"}
		end, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := end.Close(); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}()
		pids[cmd.Process.Pid] = name
	}
	var f Facts
	if err := f.lookAtPorts(); err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Ports {
		name, ours := pids[p.PID]
		if !ours {
			continue
		}
		delete(pids, p.PID)
		if p.Name != "127.0.0.1:53/udp" || p.By != want[name] || (p.Why == "a reason") != (p.By == Alone) || p.Replaced {
			t.Errorf("%s is found as %+v", name, p)
		}
	}
	if len(pids) > 0 {
		t.Errorf("not found: %v", pids)
	}
}

// TestBypassSaysWhy: the reason is the program's own words, and one that hangs or is not there is a reason, too.
func TestBypassSaysWhy(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "portsplice-bypass")
	if err := tryBypass(t.Context(), "1", dir); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a program: %v", err)
	}
	for script, want := range map[string]string{
		"#!/bin/sh\nprintf ok >&3":                                 "",
		"#!/bin/sh\nprintf 'no unsupported the kernel is old' >&3": "the kernel is old",
		"#!/bin/sh\nexit 1":                                        "EOF",
	} {
		if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		err := tryBypass(t.Context(), "1", dir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", script, err, want)
		}
	}
}

// TestSysctl reads what the kernel says as sysctl(8) would.
func TestSysctl(t *testing.T) {
	if got := sysctl("net/ipv4/ip_local_port_range"); len(got) != 2 || got[0] > got[1] {
		t.Errorf("the source ports are %v", got)
	}
	if got := sysctl("kernel/ostype"); got != nil {
		t.Errorf("words are numbers: %v", got)
	}
	if got := sysctl("no/such"); got != nil {
		t.Errorf("what is not there is %v", got)
	}
}
