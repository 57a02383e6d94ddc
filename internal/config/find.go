package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Find returns the path of the configuration file: flag, CHANTAL_CONFIG,
// chantal.yaml in the working directory, in XDG_CONFIG_HOME/chantal, in
// /etc/chantal; "" where there is none. One that is named but missing is an
// error that is fs.ErrNotExist.
func Find(flag string, getenv func(string) string) (string, error) {
	for _, named := range []struct{ path, by string }{
		{flag, "--config"}, {getenv("CHANTAL_CONFIG"), "CHANTAL_CONFIG"},
	} {
		if named.path == "" {
			continue
		}
		if _, err := os.Stat(named.path); err != nil {
			return "", fmt.Errorf("configuration file named by %s: %w", named.by, err)
		}
		return named.path, nil
	}
	places := []string{"chantal.yaml"}
	if dir := xdg(getenv, "XDG_CONFIG_HOME", ".config"); dir != "" {
		places = append(places, filepath.Join(dir, "chantal", "chantal.yaml"))
	}
	places = append(places, "/etc/chantal/chantal.yaml")
	for _, path := range places {
		_, err := os.Stat(path)
		switch {
		case err == nil:
			return path, nil
		// A folder on the way that may not be entered or is a file holds
		// nothing that was meant for this user.
		case errors.Is(err, fs.ErrNotExist), path != "chantal.yaml":
		default:
			return "", fmt.Errorf("looking for a configuration file: %w", err)
		}
	}
	return "", nil
}

// DataDir returns the data directory as an absolute path: flag, CHANTAL_DATA,
// file (what Config.Data holds), /var/lib/chantal for uid 0, else
// XDG_DATA_HOME/chantal. It is an error if nothing says where that is.
func DataDir(flag string, getenv func(string) string, uid int, file string) (string, error) {
	for _, dir := range []string{flag, getenv("CHANTAL_DATA"), file} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if uid == 0 {
		return "/var/lib/chantal", nil
	}
	if dir := xdg(getenv, "XDG_DATA_HOME", ".local/share"); dir != "" {
		return filepath.Join(dir, "chantal"), nil
	}
	return "", errors.New("no data directory: neither HOME nor XDG_DATA_HOME is set, name one with --data")
}

// xdg returns the base directory that the variable holds, or its default
// below HOME; "" where neither is known. Relative paths in these variables
// are to be ignored (XDG Base Directory Specification).
func xdg(getenv func(string) string, variable, below string) string {
	if dir := getenv(variable); filepath.IsAbs(dir) {
		return dir
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, below)
	}
	return ""
}
