/** Flags before the command that take a value; ctr's own. */
const GLOBAL_VALUES = /^--?(?:address|a|timeout|connect-timeout|namespace|n)$/
const IMAGES: ReadonlySet<string> = new Set(['images', 'image', 'i'])
const OWN_IMAGES: ReadonlySet<string> = new Set(['rpull', 'convert', 'optimize'])
/** Conversions that ctr makes itself. */
const CTR_FORMATS = /^--?(?:estargz|zstdchunked|uncompress|overlaybd|soci)(?:[-=]|$)/

/** Whether a command line is for this program itself; all others are ctr's. */
export function isOwn(argv: readonly string[]): boolean {
  const words = afterGlobals(argv)
  const [first, second] = words
  if (first === undefined) return true
  if (!IMAGES.has(first)) return ['help', 'h', 'completion'].includes(first) || first.startsWith('-')
  if (second === undefined || ['-h', '--help', '-help', 'help', 'h'].includes(second)) return true
  return OWN_IMAGES.has(second) && !(second === 'convert' && words.some((word) => CTR_FORMATS.test(word)))
}

/** The command line from the command on; from the first flag on that asks for help or version. */
function afterGlobals(argv: readonly string[]): readonly string[] {
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at] ?? ''
    if (!word.startsWith('-') || /^--?(?:help|h|version|v)$/.test(word)) return argv.slice(at)
    if (GLOBAL_VALUES.test(word)) at += 1
  }
  return []
}
