"""Files of the browser runtime: the JavaScript module `edgekit-runtime`, and the app on it."""
