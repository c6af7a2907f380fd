//! A pinned snapshot for SQL: the Parquet files of one version, read by DataFusion directly.
//!
//! Answers come from the files alone. The bounds in the log only choose which files are opened: they
//! may be wider than the data, so a `max` must never be answered from them.

use super::{
    Snapshot, StagedFile,
    schema::plain,
    statistics::{FileStatistics, array_of, day_number},
    structs::{Structs, lacks, schema_of},
};
use arrow::{
    array::{ArrayRef, BooleanArray, UInt64Array},
    datatypes::{Field, FieldRef, Fields, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, project_schema, pruning::PruningStatistics},
    datasource::{
        TableType,
        listing::PartitionedFile,
        object_store::ObjectStoreUrl,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, utils::conjunction},
    physical_expr::PhysicalExpr,
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::{ExecutionPlan, empty::EmptyExec},
    scalar::ScalarValue,
};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};
use url::Url;

/// The files of one version.
#[derive(Debug, Clone)]
pub(crate) struct DeltaSnapshot {
    store: Arc<dyn ObjectStore>,
    store_url: ObjectStoreUrl,
    /// The table's folder in the store.
    folder: Path,
    schema: SchemaRef,
    /// What each file has, and the columns that come from its place.
    columns: TableSchema,
    files: Arc<Vec<Arc<StagedFile>>>,
}

impl DeltaSnapshot {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        table: &Url,
        folder: Path,
        schema: &Schema,
        partition: &[String],
        files: Arc<Vec<Arc<StagedFile>>>,
    ) -> Result<Self> {
        let schema = Arc::new(plain(schema));
        Ok(DeltaSnapshot {
            store,
            store_url: ObjectStoreUrl::parse(&table[..url::Position::BeforePath])?,
            folder,
            columns: columns(&schema, |name| {
                partition.iter().any(|placed| placed == name)
            }),
            schema,
            files,
        })
    }

    /// Some files, with the columns that one of them may have.
    fn part(&self, files: Vec<Arc<StagedFile>>) -> Self {
        let schema = schema_of(&self.schema, &files);
        let placed = self.columns.table_partition_cols();
        DeltaSnapshot {
            columns: columns(&schema, |name| placed.find(name).is_some()),
            schema,
            files: Arc::new(files),
            ..self.clone()
        }
    }

    /// The filters over the table's columns, as DataFusion will evaluate them.
    fn predicate(
        &self,
        session: &dyn Session,
        filters: &[Expr],
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(filter) = conjunction(filters.to_vec()) else {
            return Ok(None);
        };
        let schema = DFSchema::try_from(Arc::clone(self.columns.table_schema()))?;
        session.create_physical_expr(filter, &schema).map(Some)
    }

    /// Files that may hold a matching row.
    fn chosen(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<Arc<StagedFile>>> {
        let Some(predicate) = predicate else {
            return Ok(self.files.as_ref().clone());
        };
        let schema = Arc::clone(self.columns.table_schema());
        let Ok(pruning) = PruningPredicateBuilder::new()
            .with_file_schema(schema)
            .try_build(Arc::clone(predicate))
        else {
            // A predicate that cannot prune: read everything.
            return Ok(self.files.as_ref().clone());
        };
        let bounds = Bounds::new(self);
        let kept = pruning.prune(&bounds)?;
        let files = self.files.iter().zip(kept);
        Ok(files
            .filter(|(_, keep)| *keep)
            .map(|(file, _)| Arc::clone(file))
            .collect())
    }

    fn partitioned(&self, file: &StagedFile) -> Result<PartitionedFile> {
        let columns = self.columns.table_partition_cols().iter();
        let values = columns.map(|field| partition_value(file, field));
        let values = values.collect::<Result<Vec<_>>>()?;
        let meta = ObjectMeta {
            location: self
                .folder
                .parts()
                .chain(Path::from(file.path.as_str()).parts())
                .collect(),
            last_modified: Default::default(),
            size: file.bytes,
            e_tag: None,
            version: None,
        };
        Ok(PartitionedFile::new_from_meta(meta).with_partition_values(values))
    }

    /// A projection of the table's columns as one of the scan's, which has the placed ones last.
    fn projection(&self, wanted: Option<&Vec<usize>>) -> Result<Vec<usize>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let scanned = self.columns.table_schema();
        let place = |index: &usize| Ok(scanned.index_of(self.schema.field(*index).name())?);
        wanted.unwrap_or(&all).iter().map(place).collect()
    }
}

/// The columns of files, and those that come from a file's place.
fn columns(schema: &Schema, is_placed: impl Fn(&str) -> bool) -> TableSchema {
    let fields = schema.fields().iter().cloned();
    let (placed, in_file): (Vec<FieldRef>, Vec<FieldRef>) =
        fields.partition(|field| is_placed(field.name()));
    TableSchema::builder(Arc::new(Schema::new(Fields::from(in_file))))
        .with_table_partition_cols(placed)
        .build()
}

#[async_trait]
impl TableProvider for DeltaSnapshot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if session.runtime_env().object_store(&self.store_url).is_err() {
            let url = self.store_url.as_ref();
            session
                .runtime_env()
                .register_object_store(url, Arc::clone(&self.store));
        }
        let predicate = self.predicate(session, filters)?;
        let files = self.chosen(predicate.as_ref())?;
        let files = files.iter().map(|file| self.partitioned(file));
        let files = FileGroup::new(files.collect::<Result<_>>()?);
        if files.is_empty() {
            let schema = project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let groups = match session.config().target_partitions() {
            // Splitting sorts by name; alone, the files stay in their order.
            1 => vec![files],
            partitions => files.split_files(partitions),
        };
        let options = session.table_options().parquet.clone();
        let mut source =
            ParquetSource::new(self.columns.clone()).with_table_parquet_options(options);
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let config = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(Some(self.projection(projection)?))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

impl Snapshot for DeltaSnapshot {
    fn files(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.path.as_str()).collect()
    }

    fn of_files(&self, names: &BTreeSet<&str>) -> Arc<dyn TableProvider> {
        let is_named = |file: &&Arc<StagedFile>| names.contains(file.path.as_str());
        let files = self.files.iter().filter(is_named).map(Arc::clone);
        Arc::new(DeltaSnapshot {
            files: Arc::new(files.collect()),
            ..self.clone()
        })
    }

    fn parts(&self) -> Vec<Arc<dyn TableProvider>> {
        let structs = Structs::of(&self.schema);
        let mut groups: BTreeMap<Option<usize>, Vec<Arc<StagedFile>>> = BTreeMap::new();
        for file in self.files.iter() {
            let group = groups.entry(structs.group(file)).or_default();
            group.push(Arc::clone(file));
        }
        if groups.is_empty() {
            groups.insert(None, Vec::new());
        }
        let groups = groups.into_values();
        let parts = groups.map(|files| Arc::new(self.part(files)) as Arc<dyn TableProvider>);
        parts.collect()
    }
}

fn partition_value(file: &StagedFile, field: &Field) -> Result<ScalarValue> {
    let null = || ScalarValue::try_from(field.data_type());
    let Some(Some(text)) = file.partition.get(field.name()) else {
        return null();
    };
    match day_number(text) {
        Some(day) => Ok(ScalarValue::Date32(Some(day))),
        None => Err(DataFusionError::Execution(format!(
            "file {} has `{text}` for {}, which is not a day",
            file.path,
            field.name()
        ))),
    }
}

/// The bounds of every file, for pruning.
struct Bounds<'a> {
    snapshot: &'a DeltaSnapshot,
    files: Vec<(&'a StagedFile, FileStatistics<'a>)>,
}

impl<'a> Bounds<'a> {
    fn new(snapshot: &'a DeltaSnapshot) -> Self {
        let files = snapshot.files.iter().map(|file| {
            let statistics = FileStatistics::parse(file.statistics.as_deref());
            (file.as_ref(), statistics)
        });
        Bounds {
            files: files.collect(),
            snapshot,
        }
    }

    fn placed(&self, column: &Column) -> Option<&FieldRef> {
        let placed = self.snapshot.columns.table_partition_cols();
        placed.find(&column.name).map(|(_, field)| field)
    }

    fn bounds(
        &self,
        column: &Column,
        bound: impl Fn(&FileStatistics<'a>, &Field) -> Option<ScalarValue>,
    ) -> Option<ArrayRef> {
        if let Some(field) = self.placed(column) {
            return array_of(
                self.files
                    .iter()
                    .map(|(file, _)| partition_value(file, field).ok()),
            );
        }
        let field = self.snapshot.schema.field_with_name(&column.name).ok()?;
        array_of(
            self.files
                .iter()
                .map(|(_, statistics)| bound(statistics, field)),
        )
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |s, field| s.min(field.name(), field.data_type()))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |s, field| s.max(field.name(), field.data_type()))
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        if self.placed(column).is_some() {
            return None;
        }
        let field = self.snapshot.schema.field_with_name(&column.name).ok()?;
        let counts = self.files.iter().map(|(file, s)| match lacks(file, field) {
            true => s.num_records,
            false => s.nulls(&column.name),
        });
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts = self.files.iter().map(|(_, s)| s.num_records);
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
