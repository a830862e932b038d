package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/usage"
	"github.com/portsplice/portsplice/bench/load"
)

// sctpWork is a kind of traffic, and how much of it.
type sctpWork struct {
	size, conns int
	streams     bool
}

var sctpWorks = []sctpWork{
	{64, 1, false}, {64, 16, false}, {64, 64, false}, {100, 1, true}, {100, 16, true}, {1000, 1, true}, {1000, 16, true},
}

func (w sctpWork) String() string {
	return fmt.Sprintf("%s/size=%d/conns=%d", map[bool]string{false: "exchange", true: "stream"}[w.streams], w.size, w.conns)
}

// sctp compares SCTP proxies on a kernel that has SCTP.
func sctp(ctx context.Context, args []string) error {
	s := Set{Rounds: 5, Time: time.Second}
	fs := flag.NewFlagSet("sctp", flag.ExitOnError)
	s.declare(fs, s)
	ours := fs.String("portsplice", "", "the portsplice to measure")
	reference := fs.String("reference", "/usr/sbin/docker-proxy", "the docker-proxy to compare with")
	_ = fs.Parse(args) // it exits
	proxies := []Proxy{{Name: Direct}, {Name: "docker-proxy", Path: *reference, Reference: true}, {Name: "portsplice", Path: *ours}}
	for i := range proxies {
		proxies[i].Protocols = []string{"sctp"}
	}
	var works []Work
	traffic := map[string]sctpWork{}
	for _, w := range sctpWorks {
		works = append(works, Work{Name: w.String(), Protocol: "sctp", Units: []Unit{{"message/s", true}, {"proxy-us/message", false}}})
		traffic[w.String()] = w
	}
	works, err := Select(works, s.Works)
	if err != nil {
		return err
	}
	var failures []string
	for _, w := range works {
		measure := func(ctx context.Context, w Work, p Proxy, d time.Duration) (Values, error) {
			return traffic[w.Name].measure(ctx, p, d)
		}
		result, err := Rounds(ctx, s, w, proxies, measure)
		if err != nil {
			return err
		}
		fmt.Print(result)
		failures = append(failures, result.Failures()...)
	}
	return noFigures(failures)
}

// measure gives the proxy a process and associations of its own.
func (w sctpWork) measure(ctx context.Context, proxy Proxy, d time.Duration) (v Values, err error) {
	listener, to, err := load.ListenSCTP()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(listener)) }()
	var pids []int
	if proxy.Path != "" {
		fd, front, err := load.ListenSCTP() // a port that nobody listens on
		if err == nil {
			err = unix.Close(fd)
		}
		if err != nil {
			return nil, err
		}
		p := newProcess(ctx, proxy.Path, "-proto", "sctp", "-host-ip", front.Addr().String(), "-host-port", strconv.Itoa(int(front.Port())),
			"-container-ip", to.Addr().String(), "-container-port", strconv.Itoa(int(to.Port())))
		defer p.end()
		if _, err := p.report(ctx, func(start func() error) error { return start() }); err != nil {
			return nil, err
		}
		pids, to = []int{p.Process.Pid}, front
	}
	t, err := load.OpenSCTP(listener, to, w.conns, w.size, w.streams)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if _, err := t.Run(d / 10); err != nil { // every buffer of every process has been there once
		return nil, err
	}
	messages := 0
	before, after, err := usage.During(func() (err error) {
		messages, err = t.Run(d)
		return err
	}, pids, nil)
	if err != nil {
		return nil, err
	}
	v = after.Each(before, float64(messages), time.Microsecond, "us/message")
	delete(v, usage.Others) // this process is one of them here
	v["message/s"] = float64(messages) / after.Since(before).Seconds()
	return v, nil
}
