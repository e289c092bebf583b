const HIDDEN = '[hidden]'
/** Longer messages are cut: no line is worth more, and expressions take their time. */
const MOST_CHARACTERS = 8192

/** Names of values that are secrets, as configurations, labels and headers have them. */
const NAMED =
  /((?:password|passwd|secret|token|access_key_id|authorization|(?<![a-z])auth)["'\\]*\s{0,8}[:=]\s{0,8})(?:\\*"(?:[^"\\]|\\(?!"))*\\*"|'[^']*'|(?:(?:basic|bearer)\s+)?[^\s,;&"'}\])]+)/gi
const SCHEMES = /\b(basic|bearer)\s+[A-Za-z0-9._~+/=-]{8,}/gi
const LOGINS = /(:\/\/)[^\s/?#"']*@/g

/**
 * One line without what must not be in a log: nobody should put a secret into a message, and what comes from other programs (their errors, image
 * names, labels) is not ours to trust. Control characters are escaped, so that a name cannot forge a line.
 */
export function plainLine(text: string): string {
  const short = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}… (${text.length} characters)` : text
  const shown = short.replace(LOGINS, `$1${HIDDEN}@`).replace(NAMED, `$1${HIDDEN}`).replace(SCHEMES, `$1 ${HIDDEN}`)
  // oxlint-disable-next-line no-control-regex -- these are what it looks for
  return shown.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escaped)
}

function escaped(letter: string): string {
  if (letter === '\n') return '\\n'
  if (letter === '\t') return '\\t'
  return `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`
}
