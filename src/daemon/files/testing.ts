/** The code of the error that a call throws, 'done' without one. */
export function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
  return 'done'
}
