/** Labels as ctr takes them: `key=value`, or a key alone, which is "true". */
export function labelsOf(given: readonly string[]): Record<string, string> {
  const labels = given.map((text) => {
    const equals = text.indexOf('=')
    return equals < 0 ? ([text, 'true'] as const) : ([text.slice(0, equals), text.slice(equals + 1)] as const)
  })
  return Object.fromEntries(labels)
}
