const CONTEXT = 3
/** Longer files are told by their length: comparing takes the product of both. */
const MOST_LINES = 3000

type Step = readonly [' ' | '-' | '+', string]

/** What `diff -u` prints; undefined is a file that is not there. */
export function unifiedDiff(path: string, before: string | undefined, after: string | undefined): string {
  const names = `--- ${before === undefined ? '/dev/null' : path}\n+++ ${after === undefined ? '/dev/null' : path}\n`
  const [from, to] = [linesOf(before), linesOf(after)]
  if (from.length > MOST_LINES || to.length > MOST_LINES) return `${names}(${from.length} lines become ${to.length})\n`
  const steps = stepsBetween(from, to)
  return names + hunksOf(steps).join('')
}

function linesOf(text: string | undefined): string[] {
  if (text === undefined || text === '') return []
  return text.replace(/\n$/, '').split('\n')
}

/** The longest common subsequence, walked from the front. */
function stepsBetween(from: readonly string[], to: readonly string[]): Step[] {
  const width = to.length + 1
  const common = new Uint16Array((from.length + 1) * width)
  for (let i = from.length - 1; i >= 0; i--)
    for (let j = to.length - 1; j >= 0; j--)
      common[i * width + j] =
        from[i] === to[j]
          ? (common[(i + 1) * width + j + 1] ?? 0) + 1
          : Math.max(common[(i + 1) * width + j] ?? 0, common[i * width + j + 1] ?? 0)
  const steps: Step[] = []
  for (let [i, j] = [0, 0]; i < from.length || j < to.length; ) {
    if (i < from.length && j < to.length && from[i] === to[j]) {
      steps.push([' ', from[i] ?? ''])
      i++
      j++
    } else if (
      j >= to.length ||
      (i < from.length && (common[(i + 1) * width + j] ?? 0) >= (common[i * width + j + 1] ?? 0))
    )
      steps.push(['-', from[i++] ?? ''])
    else steps.push(['+', to[j++] ?? ''])
  }
  return steps
}

function hunksOf(steps: readonly Step[]): string[] {
  const hunks: string[] = []
  let [oldLine, newLine, at] = [1, 1, 0]
  while (at < steps.length) {
    const next = steps.findIndex(([mark], index) => index >= at && mark !== ' ')
    if (next < 0) break
    const start = Math.max(at, next - CONTEXT)
    oldLine += start - at
    newLine += start - at
    const end = endOfHunk(steps, next)
    const part = steps.slice(start, end)
    const [removed, added] = [
      part.filter(([mark]) => mark !== '+').length,
      part.filter(([mark]) => mark !== '-').length,
    ]
    const range = (line: number, count: number): string => `${count === 0 ? line - 1 : line},${count}`
    hunks.push(
      `@@ -${range(oldLine, removed)} +${range(newLine, added)} @@\n${part.map(([mark, line]) => `${mark}${line}\n`).join('')}`,
    )
    oldLine += removed
    newLine += added
    at = end
  }
  return hunks
}

/** Changes with few lines between them are one hunk. */
function endOfHunk(steps: readonly Step[], from: number): number {
  let last = from
  for (let index = from; index < steps.length && index <= last + 2 * CONTEXT; index++)
    if (steps[index]?.[0] !== ' ') last = index
  return Math.min(steps.length, last + 1 + CONTEXT)
}
