/** The message of whatever was thrown, with its causes. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause =
    error.cause instanceof Error && !error.message.includes(error.cause.message) ? messageOf(error.cause) : ''
  return cause === '' ? error.message : `${error.message}: ${cause}`
}
