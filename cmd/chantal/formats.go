package main

import (
	"chantal"
	"chantal/internal/config"
	"chantal/internal/sign"
	"chantal/plugins/apt"
	"chantal/plugins/pypi"
	"chantal/plugins/rpm"
)

// formats returns the repository formats by the type that configurations name.
// config.Generic has none: its files stand for themselves.
func formats() map[string]chantal.Format {
	return map[string]chantal.Format{
		config.Apt:  &apt.Format{Belongs: sign.Belongs},
		config.RPM:  rpm.Format{Belongs: sign.Belongs},
		config.PyPI: pypi.Format{},
	}
}
