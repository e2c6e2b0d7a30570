// The text of each cell of the table panels, joined, ordered, mapped and sorted by Grafana's own code.
// stdin: [{panel, answers: {refId: [sample, ...]}}, ...]; a sample has its labels and "value".
// stdout: {"tables": [[{column: text, ...}, ...], ...], "units": [...]}: rows for each panel, and every unit there is.

// Grafana's library looks at its page when it is loaded
globalThis.window = { grafanaBootData: { settings: { featureToggles: {} } }, location: {} };
globalThis.document = {};
globalThis.navigator ??= { languages: ['en-GB'] };
console.time = console.timeEnd = () => {};

const { readFileSync } = require('node:fs');
const grafana = require('@grafana/data');
const { firstValueFrom } = require('rxjs');

const { mergeTransformer, organizeFieldsTransformer } = grafana.standardTransformers;
const { filterFieldsByNameTransformer, orderFieldsTransformer, renameFieldsTransformer } = grafana.standardTransformers;
grafana.standardTransformersRegistry.setInit(() =>
  [
    mergeTransformer,
    organizeFieldsTransformer,
    filterFieldsByNameTransformer,
    orderFieldsTransformer,
    renameFieldsTransformer,
  ].map((transformation) => ({ id: transformation.id, name: transformation.name, transformation }))
);

const option = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  path,
  name: path,
  isCustom,
  process: (value) => value,
  shouldApply: () => true,
});
const plain = ['unit', 'decimals', 'mappings', 'thresholds', 'noValue', 'min', 'max', 'links', 'color'];
const custom = ['cellOptions', 'align', 'width', 'minWidth', 'filterable', 'inspect'];
const fieldConfigRegistry = new grafana.Registry(() => [
  ...plain.map((path) => option(path, false)),
  ...custom.map((path) => option(path, true)),
]);
grafana.standardFieldConfigEditorRegistry.setInit(() => plain.map((path) => option(path, false)));

/** An instant query's answer as the Prometheus data source gives it in the format "table". */
function frameOf(refId, samples, several) {
  const labels = [...new Set(samples.flatMap((sample) => Object.keys(sample)))].filter((name) => name !== 'value');
  return grafana.toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: 'time', values: samples.map(() => 0) },
      ...labels.map((name) => ({ name, type: 'string', values: samples.map((sample) => sample[name] ?? '') })),
      { name: several ? `Value #${refId}` : 'Value', type: 'number', values: samples.map((sample) => sample.value) },
    ],
  });
}

async function rowsOf({ panel, answers }) {
  const answered = panel.targets.filter((target) => answers[target.refId].length > 0);
  const frames = answered.map((target) => frameOf(target.refId, answers[target.refId], answered.length > 1));
  const joined = await firstValueFrom(grafana.transformDataFrame(panel.transformations, frames));
  const shown = grafana.applyFieldOverrides({
    data: joined,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry,
    replaceVariables: (text) => text,
    theme: grafana.createTheme(),
    timeZone: 'utc',
  });
  if (shown.length !== 1) {
    throw new Error(`${panel.title}: ${shown.length} tables, not one`);
  }
  const fields = shown[0].fields;
  const [by] = panel.options.sortBy;
  const sorter = fields.find((field) => grafana.getFieldDisplayName(field) === by.displayName);
  const order = [...Array(shown[0].length).keys()].sort(
    (one, other) => (sorter.values[one] - sorter.values[other]) * (by.desc ? -1 : 1)
  );
  return order.map((row) =>
    Object.fromEntries(
      fields.map((field) => [
        grafana.getFieldDisplayName(field),
        grafana.formattedValueToString(field.display(field.values[row])),
      ])
    )
  );
}

const units = grafana.getValueFormats().flatMap((category) => category.submenu.map((unit) => unit.value));
Promise.all(JSON.parse(readFileSync(0, 'utf8')).map(rowsOf)).then((tables) =>
  process.stdout.write(JSON.stringify({ tables, units }))
);
