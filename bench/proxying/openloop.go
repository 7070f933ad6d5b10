// Load at a rate that answers do not change: openloop ADDRESS PATH RATE SECONDS CONNECTIONS BODYBYTES.
// Prints how many were answered with 200, how many were not, and each latency in microseconds, one a line.
//
// A latency counts from when the request was due where its connection was still waiting for an answer, so that a server
// that stands still is seen by all who would have asked; else from when it was sent, so that our own timer is not.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	address, path := os.Args[1], os.Args[2]
	rate, seconds, connections, size := number(os.Args[3]), number(os.Args[4]), int(number(os.Args[5])), int(number(os.Args[6]))
	body := bytes.Repeat([]byte("x"), size)
	request := []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", path, size, body))
	latencies, failures := make([][]time.Duration, connections), make([]int, connections)
	begin := time.Now().Add(100 * time.Millisecond)
	var group sync.WaitGroup
	for c := 0; c < connections; c++ {
		group.Add(1)
		go func() {
			defer group.Done()
			connection, err := net.Dial("tcp", address)
			if err != nil {
				panic(err)
			}
			defer connection.Close()
			reader := bufio.NewReaderSize(connection, 128*1024)
			free := begin
			for i := c; float64(i) < rate*seconds; i += connections {
				due := begin.Add(time.Duration(float64(i) / rate * 1e9))
				time.Sleep(time.Until(due))
				from := due
				if free.Before(due) {
					from = time.Now()
				}
				if _, err := connection.Write(request); err != nil {
					panic(err)
				}
				answer, err := http.ReadResponse(reader, nil)
				if err != nil {
					panic(err)
				}
				io.Copy(io.Discard, answer.Body)
				free = time.Now()
				if answer.StatusCode == 200 {
					latencies[c] = append(latencies[c], free.Sub(from))
				} else {
					failures[c]++
				}
			}
		}()
	}
	group.Wait()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	good, bad := 0, 0
	for c := range latencies {
		good, bad = good+len(latencies[c]), bad+failures[c]
	}
	fmt.Fprintln(out, good, bad)
	for _, some := range latencies {
		for _, one := range some {
			fmt.Fprintln(out, one.Microseconds())
		}
	}
}
