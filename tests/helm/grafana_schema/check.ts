// The dashboard against Grafana's own types. The test writes dashboard.ts beside this file: the JSON
// as a literal of type `Board`, so that unknown keys and wrong values are errors of the compiler.
import type {
  Dashboard,
  DataSourceRef,
  FieldConfig,
  FieldConfigSource,
  Panel,
  RowPanel,
  VariableModel,
} from '@grafana/schema';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  Options as StateTimeline,
  FieldConfig as StateTimelineField,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {
  Options as Table,
  FieldConfig as TableField,
} from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  Options as TimeSeries,
  FieldConfig as TimeSeriesField,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** The JSON of a type: the members of an enum are its values. */
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer N extends number}`
      ? N
      : number
    : T extends (infer Item)[]
      ? Json<Item>[]
      : T extends object
        ? { [Key in keyof T]: Json<T[Key]> }
        : T;

/** A query of the Prometheus data source, as far as this dashboard uses one. */
interface PrometheusQuery {
  refId: string;
  datasource: DataSourceRef;
  editorMode: 'code' | 'builder';
  expr: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  interval?: string;
  legendFormat: string;
  range: boolean;
}

type Known<Type extends string, Options, Field> = Omit<
  Json<Panel>,
  'type' | 'options' | 'fieldConfig' | 'targets'
> & {
  type: Type;
  // Newer minor versions add options with defaults
  options: Partial<Json<Options>>;
  // Grafana's `custom` takes any key beside the panel's own
  fieldConfig: Omit<Json<FieldConfigSource>, 'defaults'> & {
    defaults: Omit<Json<FieldConfig>, 'custom'> & { custom?: Partial<Json<Field>> };
  };
  targets: PrometheusQuery[];
};

type KnownPanel =
  | Known<'stat', Stat, Record<string, never>>
  | Known<'state-timeline', StateTimeline, StateTimelineField>
  | Known<'table', Table, TableField>
  | Known<'timeseries', TimeSeries, TimeSeriesField>
  | Json<RowPanel>;

/** Keys that Grafana writes and the types leave out. */
type Variable = Json<VariableModel> & { definition?: string };

export type Board = Omit<Json<Dashboard>, 'panels' | 'templating'> & {
  panels: KnownPanel[];
  templating: { list: Variable[] };
};
