/**
 * Patterns for images, as the kubelet has them in `matchImages`, answers of plugins and Docker configurations in secrets: a host, whose labels may have `*`
 * and `?`, perhaps a port, perhaps the start of a path. Source: Kubernetes, "Configure a kubelet image credential provider".
 */

interface Place {
  readonly labels: readonly string[]
  readonly port: string
  readonly path: string
}

/** True when the image (host and path, without a scheme) is one of the pattern's: as many host labels, each of which matches, the same port, a path that starts so. */
export function matchesImage(pattern: string, image: string): boolean {
  const wanted = placeOf(pattern)
  const found = placeOf(image)
  if (wanted.port !== found.port || wanted.labels.length !== found.labels.length) return false
  if (!found.path.startsWith(wanted.path)) return false
  return wanted.labels.every((label, index) => matchesLabel(label, found.labels[index] ?? ''))
}

/** The best of the patterns that match, in the kubelet's order: reverse alphabetical, so that the longer path comes first. */
export function bestPattern(patterns: Iterable<string>, image: string): string | undefined {
  let best: string | undefined
  for (const pattern of patterns)
    if ((best === undefined || pattern > best) && matchesImage(pattern, image)) best = pattern
  return best
}

function placeOf(text: string): Place {
  const slash = text.indexOf('/')
  const authority = slash < 0 ? text : text.slice(0, slash)
  const port = /:(\d*)$/.exec(authority.startsWith('[') ? authority.slice(authority.indexOf(']') + 1) : authority)
  const host = port === null ? authority : authority.slice(0, -port[0].length)
  return { labels: host.split('.'), port: port?.[1] ?? '', path: slash < 0 ? '' : text.slice(slash) }
}

/** `*` is any run of characters, `?` any one. Without backtracking over more than the last `*`: linear for one, at most square. */
function matchesLabel(pattern: string, label: string): boolean {
  let at = 0
  let in_ = 0
  let star = -1
  let retry = 0
  while (in_ < label.length) {
    const wanted = pattern[at]
    if (wanted === '*') {
      star = at++
      retry = in_
    } else if (wanted === '?' || wanted === label[in_]) {
      at++
      in_++
    } else if (star >= 0) {
      at = star + 1
      in_ = ++retry
    } else return false
  }
  while (pattern[at] === '*') at++
  return at === pattern.length
}
