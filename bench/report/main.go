package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"

	"github.com/portsplice/portsplice/bench"
)

func main() {
	readme := flag.String("readme", "", "file whose table is to be written anew")
	flag.Parse()
	bench.Main("report", func(context.Context) error { return run(flag.Arg(0), *readme) })
}

func run(dir, readme string) error {
	if dir == "" {
		return errors.New("usage: report [-readme FILE] DIRECTORY")
	}
	r, err := bench.ReadReport(dir)
	if err != nil {
		return err
	}
	plots, err := drawPlots(dir, r.Results())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(page(r, plots)), 0o644); err != nil {
		return err
	}
	if readme == "" {
		return nil
	}
	return replaceTable(readme, summary(r, dir))
}
