package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/portsplice/portsplice/bench/internal/stats"
)

// measureIdle compares the proxy before and after connections or flows were opened that each exchanged one message.
func (p *Programs) measureIdle(ctx context.Context, l *lab, w Work, r route) (Values, error) {
	var pids []int
	if r.proxy != 0 {
		pids = append(pids, r.proxy)
	}
	before, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	client := slices.Concat(w.client, []string{"-to", r.to.String(), "-conns", strconv.Itoa(w.count)})
	if _, _, err := l.start(ctx, l.client, p.load, client); err != nil {
		return nil, err
	}
	after, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	grown := []float64{after.kernel - before.kernel, after.pss - before.pss,
		after.private - before.private, after.descriptors - before.descriptors}
	if len(pids) == 0 {
		grown = grown[:1]
	} else if held := after.descriptors - before.descriptors; held < float64(w.count) {
		return nil, fmt.Errorf("%s: the proxy has only %.0f descriptors more than before", w.Name, held)
	}
	v := Values{}
	for i, g := range grown {
		v[w.Units[i].Name] = g / float64(w.count)
	}
	return v, nil
}

// measurePorts starts many proxies, one after the other, and looks at them when they are idle. Their backend is an
// address where nobody listens, and nobody connects.
func (p *Programs) measurePorts(ctx context.Context, l *lab, w Work, proxy Proxy) (Values, error) {
	before, err := readMemory(ctx)
	if err != nil {
		return nil, err
	}
	var started []float64
	var pids []int
	for i := range w.count {
		running, took, err := p.startProxy(ctx, l, proxy, w.Protocol, uint16(firstFrontend+i), messagesBackend)
		if err != nil {
			return nil, err
		}
		started = append(started, took.Seconds()*1e3)
		pids = append(pids, running.Process.Pid)
	}
	after, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	n := float64(w.count)
	return Values{
		"start-ms":        stats.Median(started),
		"pss-kB/port":     after.pss / n,
		"private-kB/port": after.private / n,
		"kernel-kB/port":  (after.kernel - before.kernel) / n,
		"threads/port":    after.threads / n,
		"machine-kB/port": (after.machine - before.machine) / n,
	}, nil
}
