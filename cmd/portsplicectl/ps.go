package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/worker"
)

// ps is the command that lists ports.
func ps() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ps",
		Short: "List the published ports that workers serve",
		Long: `List the published ports that workers serve in this network namespace. Root sees
all of them, and others those of their own workers.

A port that is served without a worker, as with PORTSPLICE_WORKER=off, is not
listed: "ss -lnp" shows it.

BYPASSED counts connections of local clients that went to the container without
the proxy (-local-bypass), or says why they cannot.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			lists, err := worker.Ask[worker.List]("list")
			write := table
			if asJSON {
				write = func(w io.Writer, lists []worker.List) error { return json.NewEncoder(w).Encode(lists) }
			}
			return errors.Join(write(c.OutOrStdout(), lists), err)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print what the workers answer, as a list")
	return c
}

// table prints a line for each port.
func table(w io.Writer, lists []worker.List) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "PORT\tBACKEND\tENGINE\tACTIVE\tTOTAL\tSINCE\tSHIM\tWORKER\tBYPASSED") // Flush tells of errors
	for _, list := range lists {
		for _, p := range list.Ports {
			active, total := p.Counters["active"], p.Counters["accepted"]
			if p.Protocol == "udp" {
				active, total = p.Counters["flows"], p.Counters["flows-total"]
			}
			_, _ = fmt.Fprintf(t, "%s/%s\t%s\t%s\t%d\t%d\t%s\t%d\t%d\t%s\n", p.Frontend, p.Protocol, p.Backend, p.Engine,
				active, total, time.Since(p.Since).Round(time.Second), p.Shim, list.Worker, bypassed(p))
		}
	}
	return t.Flush()
}

// bypassed is how many local clients have reached the backend without the proxy, or why none does.
func bypassed(p worker.Port) string {
	switch p.Bypass {
	case "on":
		return strconv.FormatUint(p.Counters["bypassed"], 10)
	case "off", "": // an empty one is of a worker that is older
		return "-"
	default:
		return "no: " + p.Bypass
	}
}
