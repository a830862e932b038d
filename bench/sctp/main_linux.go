package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench"
)

// work is a kind of traffic, and how much of it.
type work struct {
	name        string
	size, conns int
	awaits      uint32 // what a client waits for
	run         func(*traffic, time.Duration) (messages int, err error)
}

func works() []work {
	var all []work
	for _, conns := range []int{1, 16, 64} {
		all = append(all, work{"exchange", 64, conns, unix.EPOLLIN, (*traffic).exchange})
	}
	for _, size := range []int{100, 1000} {
		for _, conns := range []int{1, 16} {
			all = append(all, work{"stream", size, conns, unix.EPOLLOUT, (*traffic).stream})
		}
	}
	return all
}

func (w work) String() string { return fmt.Sprintf("%s/size=%d/conns=%d", w.name, w.size, w.conns) }

func main() {
	ours := flag.String("portsplice", "", "the portsplice to measure")
	reference := flag.String("reference", "/usr/sbin/docker-proxy", "the docker-proxy to compare with")
	rounds := flag.Int("rounds", 5, "rounds that count; one more comes before and is dropped")
	duration := flag.Duration("time", time.Second, "how long traffic is measured in a round")
	only := flag.String("work", "", "the one work to measure (default all)")
	flag.Parse()
	proxies := []bench.Proxy{{Name: bench.Direct}, {Name: "docker-proxy", Path: *reference, Reference: true},
		{Name: "portsplice", Path: *ours}}
	bench.Main("bench-sctp", func(ctx context.Context) error {
		for _, w := range works() {
			if *only != "" && *only != w.String() {
				continue
			}
			if err := compare(ctx, w, proxies, *rounds, *duration); err != nil {
				return err
			}
		}
		return nil
	})
}

// compare measures the proxies in turn and prints a table.
func compare(ctx context.Context, w work, proxies []bench.Proxy, rounds int, d time.Duration) error {
	titled := bench.Work{Name: w.String(), Units: []bench.Unit{{Name: "message/s", More: true}, {Name: "proxy-us/message"}}}
	samples, err := bench.Rounds(ctx, rounds, titled, proxies,
		func(_ context.Context, _ bench.Work, p bench.Proxy, round int) (bench.Values, error) {
			if round == 0 {
				return measure(w, p, d/4)
			}
			return measure(w, p, d)
		})
	if err != nil {
		return err
	}
	fmt.Print(bench.Result{Work: titled, Proxies: proxies, Samples: samples})
	return nil
}

// measure gives the proxy a process and associations of its own.
func measure(w work, proxy bench.Proxy, d time.Duration) (bench.Values, error) {
	backend, at, err := listen()
	if err != nil {
		return nil, err
	}
	defer closeSocket(backend)
	p, to, err := start(proxy, at)
	if err != nil {
		return nil, err
	}
	defer p.end()
	t, err := open(w, backend, to)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if _, err := w.run(t, d/10); err != nil { // every buffer of every process has been there once
		return nil, err
	}
	cpu, begun := p.cpu(), time.Now()
	messages, err := w.run(t, d)
	took := time.Since(begun).Seconds()
	if err != nil {
		return nil, err
	}
	values := bench.Values{"message/s": float64(messages) / took}
	if proxy.Path != "" {
		values["proxy-us/message"] = (p.cpu() - cpu).Seconds() * 1e6 / float64(messages)
	}
	return values, nil
}
