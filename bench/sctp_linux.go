package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/usage"
	"github.com/portsplice/portsplice/bench/load"
)

// sctpWorks are exchanges of messages, and streams of them.
const sctpWorks = "exchange/size=64/conns=1 exchange/size=64/conns=16 exchange/size=64/conns=64 " +
	"stream/size=100/conns=1 stream/size=100/conns=16 stream/size=1000/conns=1 stream/size=1000/conns=16"

// sctp compares SCTP proxies on a kernel that has SCTP.
func sctp(ctx context.Context, args []string) {
	s := Set{Rounds: 5, Time: time.Second}
	fs := flag.NewFlagSet("sctp", flag.ExitOnError)
	s.declare(fs, s)
	ours := fs.String("portsplice", "", "the portsplice to measure")
	reference := fs.String("reference", "docker-proxy", "the docker-proxy to compare with (default: from PATH)")
	_ = fs.Parse(args) // it exits
	known := []string{"sctp"}
	proxies := []Proxy{{Name: Direct, Protocols: known},
		{Name: "docker-proxy", Path: *reference, Protocols: known, Reference: true},
		{Name: "portsplice", Path: *ours, Protocols: known}}
	var works []Work
	for name := range strings.FieldsSeq(sctpWorks) {
		works = append(works, Work{Name: name, Protocol: "sctp", Units: []Unit{{"message/s", true}, {"proxy-us/message", false}}})
	}
	measure := func(ctx context.Context, w Work, p Proxy, d time.Duration) (v Values, err error) {
		err = failure.Caught(func() { v = measureSCTP(ctx, w, p, d) })
		return v, err
	}
	var failures []string
	for _, w := range failure.Must(Select(works, s.Works)) {
		result := Rounds(ctx, s, w, proxies, measure)
		fmt.Print(result)
		failures = append(failures, result.Failures()...)
	}
	wantNone(failures)
}

// measureSCTP gives the proxy a process and associations of its own.
func measureSCTP(ctx context.Context, w Work, proxy Proxy, d time.Duration) Values {
	listener, to := load.ListenSCTP()
	defer func() { _ = unix.Close(listener) }() // nothing was written
	var pids []int
	if proxy.Path != "" {
		fd, front := load.ListenSCTP() // a port that nobody listens on
		failure.Check(unix.Close(fd))
		p := newProcess(ctx, proxy.Path, "-proto", "sctp",
			"-host-ip", front.Addr().String(), "-host-port", fmt.Sprint(front.Port()),
			"-container-ip", to.Addr().String(), "-container-port", fmt.Sprint(to.Port()))
		defer p.end()
		p.report(func(start func() error) error { return start() })
		pids, to = []int{p.Process.Pid}, front
	}
	t := load.NewSCTP(w.number("size"), strings.HasPrefix(w.Name, "stream/"))
	defer t.Close()
	t.Open(listener, to, w.number("conns"))
	t.Run(d / 10) // every buffer of every process has been there once
	before := usage.Read(pids, nil)
	messages := t.Run(d)
	after := usage.Read(pids, nil)
	v := Values(after.Each(before, float64(messages), time.Microsecond, "us/message"))
	delete(v, usage.Others) // this process is one of them here
	v["message/s"] = float64(messages) / after.Since(before).Seconds()
	return v
}
