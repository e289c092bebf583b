export const release = '2.0.0'
