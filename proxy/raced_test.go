//go:build race

package proxy

// slower is how many times slower everything is under the race detector.
const slower = 4
