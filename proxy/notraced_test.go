//go:build !race

package proxy

const slower = 1
