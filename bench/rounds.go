package bench

import (
	"context"
	"fmt"
)

// Proxy is a program that relays, or none: "direct".
type Proxy struct {
	Name      string   `json:"name"`
	Path      string   `json:"path,omitempty"`      // of the program; none for direct
	Arguments []string `json:"arguments,omitempty"` // after dockerd's
	Protocols []string `json:"protocols"`           // that it relays
	Reference bool     `json:"reference,omitempty"` // what the others are compared with
}

// Direct is no proxy.
const Direct = "direct"

// Sample is one measurement.
type Sample struct {
	Work   string `json:"work"`
	Proxy  string `json:"proxy"`
	Round  int    `json:"round"` // 0: dropped
	Values Values `json:"values"`
}

// Rounds measures the proxies in turn, n times and once before. The round that comes before is number 0: it is for the
// machine to get used to the work, and tables leave it out.
func Rounds(ctx context.Context, n int, work Work, proxies []Proxy,
	measure func(_ context.Context, _ Work, _ Proxy, round int) (Values, error)) ([]Sample, error) {
	var samples []Sample
	for round := range n + 1 {
		for _, p := range proxies {
			if !work.Fits(p) {
				continue
			}
			values, err := measure(ctx, work, p, round)
			if err != nil {
				return nil, fmt.Errorf("%s, proxy %s, round %d: %w", work.Name, p.Name, round, err)
			}
			samples = append(samples, Sample{Work: work.Name, Proxy: p.Name, Round: round, Values: values})
		}
	}
	return samples, nil
}
