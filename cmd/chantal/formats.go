package main

import (
	"chantal"
	"chantal/internal/config"
	"chantal/plugins/apt"
	"chantal/plugins/pypi"
	"chantal/plugins/rpm"
)

// formats returns the repository formats by the type that configurations name.
// config.Generic has none: its files stand for themselves.
func formats() map[string]chantal.Format {
	return map[string]chantal.Format{
		config.Apt:  apt.New(),
		config.RPM:  rpm.Format{},
		config.PyPI: pypi.Format{},
	}
}
