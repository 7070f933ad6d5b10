// A reverse proxy in the standard library's words, which is what KServe's agent is: proxy LISTEN UPSTREAM.
package main

import (
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
)

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(p) }

func main() {
	target, err := url.Parse("http://" + os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	// As KServe's agent sets them.
	proxy.Transport = &http.Transport{
		DialContext:         (&net.Dialer{}).DialContext,
		MaxIdleConns:        1000,
		MaxIdleConnsPerHost: 1000,
		DisableCompression:  true,
	}
	proxy.FlushInterval = -1
	proxy.BufferPool = &buffers{sync.Pool{New: func() any { return make([]byte, 32*1024) }}}
	log.Fatal(http.ListenAndServe(os.Args[1], proxy))
}
