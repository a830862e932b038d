package main

import (
	"encoding/json"
	"fmt"
	"io"
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
listed: "ss -lnp" shows it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			lists, err := worker.Ask[worker.List]("list")
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(lists)
			}
			return table(c.OutOrStdout(), lists)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print what the workers answer, as a list")
	return c
}

// table prints a line for each port.
func table(w io.Writer, lists []worker.List) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "PORT\tBACKEND\tENGINE\tACTIVE\tTOTAL\tSINCE\tSHIM\tWORKER") // Flush tells of errors
	for _, list := range lists {
		for _, p := range list.Ports {
			active, total := p.Counters["active"], p.Counters["accepted"]
			if p.Protocol == "udp" {
				active, total = p.Counters["flows"], p.Counters["flows-total"]
			}
			_, _ = fmt.Fprintf(t, "%s/%s\t%s\t%s\t%d\t%d\t%s\t%d\t%d\n", p.Frontend, p.Protocol, p.Backend, p.Engine,
				active, total, time.Since(p.Since).Round(time.Second), p.Shim, list.Worker)
		}
	}
	return t.Flush()
}
