const HOST = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/
const ADDRESS = /^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/

/** Whether text is a name, an IPv4 or a bracketed IPv6 address, and perhaps a port. */
export function isHost(text: string): boolean {
  return HOST.test(text)
}

/** Whether a host is an IP address, before which no other name can stand. */
export function isAddress(host: string): boolean {
  return ADDRESS.test(host)
}
