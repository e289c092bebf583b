/** Loaded before every test file: a property that fails is reduced for a minute and then told, however slow one try of it is. */
import { configureGlobal } from 'fast-check'

configureGlobal({ interruptAfterTimeLimit: 60_000 })
