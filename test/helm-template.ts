/** As much of Helm's template language as the chart of `packaging/helm` uses: values, `if`, `toYaml`, `nindent`, `default`, `sha256sum`. Anything else is refused. */
import { createHash } from 'node:crypto'
import { stringify } from 'yaml'

type Scope = Readonly<Record<string, unknown>>

type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'value'; readonly expression: string }
  | { readonly kind: 'if'; readonly expression: string; readonly whenTrue: Node[]; readonly whenFalse: Node[] }

/** Throws for what is no template, or uses what is not here. */
export function renderTemplate(text: string, scope: Scope): string {
  const tokens = text.split(/(\{\{-?[^]*?-?\}\})/)
  for (const [index, token] of tokens.entries()) {
    if (!token.startsWith('{{')) continue
    if (token.startsWith('{{-')) tokens[index - 1] = (tokens[index - 1] ?? '').trimEnd()
    if (token.endsWith('-}}')) tokens[index + 1] = (tokens[index + 1] ?? '').trimStart()
  }
  const rest = [...tokens]
  const nodes = parse(rest, [])
  if (rest.length > 0) throw new Error('an end too many')
  return nodes.map((node) => render(node, scope)).join('')
}

function parse(tokens: string[], ends: readonly string[]): Node[] {
  const nodes: Node[] = []
  for (let token = tokens.shift(); token !== undefined; token = tokens.shift()) {
    if (!token.startsWith('{{')) {
      nodes.push({ kind: 'text', text: token })
      continue
    }
    const expression = token.replace(/^\{\{-?\s*|\s*-?\}\}$/g, '')
    if (ends.includes(expression)) {
      tokens.unshift(token)
      return nodes
    }
    if (!expression.startsWith('if ')) {
      nodes.push({ kind: 'value', expression })
      continue
    }
    const whenTrue = parse(tokens, ['else', 'end'])
    const isElse = /else/.test(tokens.shift() ?? '')
    const whenFalse = isElse ? parse(tokens, ['end']) : []
    if (isElse) tokens.shift()
    nodes.push({ kind: 'if', expression: expression.slice(3), whenTrue, whenFalse })
  }
  if (ends.length > 0) throw new Error('an if without an end')
  return nodes
}

function render(node: Node, scope: Scope): string {
  if (node.kind === 'text') return node.text
  if (node.kind === 'value') return String(evaluate(node.expression, scope))
  const value = evaluate(node.expression, scope)
  const isTrue = value !== '' && value !== false && value !== undefined && value !== 0
  return (isTrue ? node.whenTrue : node.whenFalse).map((one) => render(one, scope)).join('')
}

function evaluate(expression: string, scope: Scope): unknown {
  const [first = '', ...steps] = expression.split('|').map((part) => part.trim())
  return steps.reduce<unknown>(
    (value, step) => {
      const [name = '', argument = ''] = step.split(/\s+/)
      if (name === 'nindent') return `\n${String(value).replace(/^/gm, ' '.repeat(Number(argument)))}`.trimEnd()
      if (name === 'default') return value === '' || value === undefined ? lookUp(argument, scope) : value
      if (name === 'sha256sum') return createHash('sha256').update(String(value)).digest('hex')
      throw new Error(`${name} is not known here`)
    },
    head(first, scope),
  )
}

function head(expression: string, scope: Scope): unknown {
  const [name = '', argument = ''] = expression.split(/\s+/)
  return name === 'toYaml' ? stringify(lookUp(argument, scope)).trimEnd() : lookUp(expression, scope)
}

function lookUp(path: string, scope: Scope): unknown {
  if (!/^(?:\.\w+)+$/.test(path)) throw new Error(`${path} is not known here`)
  return path
    .slice(1)
    .split('.')
    .reduce<unknown>((at, key) => {
      if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) throw new Error(`there is no value ${path}`)
      return (at as Scope)[key]
    }, scope)
}
