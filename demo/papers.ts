/**
 * Takes a measured run into the README: its table, the picture, and the figures that both come from.
 * `npm run --silent demo -- --json | sh scripts/node.sh demo/papers.ts`
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type DemoResult, renderTable, type StartResult } from './result.ts'

const ROOT = join(import.meta.dirname, '..')
export const README = join(ROOT, 'README.md')
export const FIGURES = join(ROOT, 'docs/demo.json')
export const PICTURE = join(ROOT, 'docs/demo.svg')

/** The README with this result's table between its marks. */
export function withTable(readme: string, result: DemoResult): string {
  const block = `<!-- demo -->\n\`\`\`text\n${renderTable(result)}\n\`\`\`\n<!-- /demo -->`
  return readme.replace(/<!-- demo -->[^]*<!-- \/demo -->/, () => block)
}

const WIDTH = 760
const LEFT = 110
const BAR = 34
const COLOURS = ['#3b82c4', '#94a3b8', '#cbd5e1', '#2f9e6e'] as const

/** Two bars of time, to one scale: what each way of starting spends it on. */
export function renderPicture({ network, eager, lazy, speedup }: DemoResult): string {
  if (eager === undefined || lazy === undefined || speedup === undefined)
    throw new Error('a run without starts has no picture')
  const scale = (WIDTH - LEFT - 90) / Math.max(eager.ready_s, lazy.ready_s)
  const title = `Ready ${speedup.toFixed(1)} times sooner: ${network.bandwidth_mbit} Mbit/s, ${network.round_trip_ms} ms round trip`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} 190" font-family="sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="190" fill="#ffffff"/>`,
    `<text x="16" y="26" font-size="16" fill="#111827">${title}</text>`,
    ...bar('plain pull', eager, 50, scale),
    ...bar('lazy', lazy, 104, scale),
    ...legend(),
    '</svg>\n',
  ].join('\n')
}

/** The phases in the order of the colours: what is fetched first, two steps until it is usable, the program. */
function bar(name: string, start: StartResult, y: number, scale: number): string[] {
  let x = LEFT
  const parts = Object.values(start.phases).map((seconds, index) => {
    const width = seconds * scale
    const rectangle = `<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" fill="${COLOURS[index] ?? '#000000'}"/>`
    x += width
    return rectangle
  })
  const middle = y + BAR / 2 + 5
  const mib = `${(start.bytes / 2 ** 20).toFixed(0)} MiB`
  return [
    `<text x="${LEFT - 10}" y="${middle}" text-anchor="end" fill="#111827">${name}</text>`,
    ...parts,
    `<text x="${(x + 8).toFixed(1)}" y="${middle - 7}" fill="#111827">${start.ready_s.toFixed(1)} s</text>`,
    `<text x="${(x + 8).toFixed(1)}" y="${middle + 9}" fill="#6b7280">${mib}</text>`,
  ]
}

/** What the colours mean, and where each entry begins. */
const LEGEND = [
  { text: 'fetched before anything runs', x: 16 },
  { text: 'unpack, or wait for nydusd', x: 222 },
  { text: 'mount', x: 416 },
  { text: 'the program, until it answers', x: 496 },
] as const

function legend(): string[] {
  return LEGEND.flatMap(({ text, x }, index) => [
    `<rect x="${x}" y="160" width="11" height="11" fill="${COLOURS[index] ?? '#000000'}"/>`,
    `<text x="${x + 16}" y="170" font-size="12" fill="#374151">${text}</text>`,
  ])
}

if (import.meta.main) {
  const result = JSON.parse(await text(process.stdin)) as DemoResult
  writeFileSync(PICTURE, renderPicture(result))
  writeFileSync(FIGURES, `${JSON.stringify(result, undefined, 2)}\n`)
  writeFileSync(README, withTable(readFileSync(README, 'utf8'), result))
}
